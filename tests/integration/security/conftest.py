"""A broker with TLS, certified by an authority of the run's own, and another authority."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.security.certificates import Authority
from local_stack.newer_broker import newer_programs
from local_stack.ports import LOOPBACK, free_ports
from local_stack.provision import RABBITMQ
from local_stack.rabbitmq import RabbitNode

# https://www.rabbitmq.com/docs/ssl#enabling-tls, in the form that a node started here reads beside
# its own settings.
_TLS_SETTINGS = """
[{{rabbit, [
  {{ssl_listeners, [{{"{host}", {port}}}]}},
  {{ssl_options, [
    {{cacertfile, "{authority.certificate}"}},
    {{certfile, "{authority.server_certificate}"}},
    {{keyfile, "{authority.server_key}"}},
    {{verify, verify_none}}
  ]}}
]}}].
"""


@dataclass(frozen=True)
class TlsBroker:
    """A broker, the port of its TLS listener, and the authority that certified it."""

    node: RabbitNode
    port: int
    authority: Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the authority that certified the servers."""
    return Authority.found(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="session")
def uncertified(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that certified neither server."""
    return Authority.found(tmp_path_factory.mktemp("tls") / "strange")


@pytest.fixture(scope="module")
def tls_broker(server_directory: Path, authority: Authority) -> Iterator[TlsBroker]:
    """Run a RabbitMQ with a TLS listener."""
    directory = server_directory / "rabbitmq-tls"
    directory.mkdir()
    (port,) = free_ports(None)
    (directory / "advanced.config").write_text(
        _TLS_SETTINGS.format(host=LOOPBACK, port=port, authority=authority)
    )
    newer = newer_programs(Path(".local/rabbitmq4-programs")) if RABBITMQ in os.environ else None
    with RabbitNode.start(directory, programs=newer) as node:
        yield TlsBroker(node, port, authority)
