"""The URL alone turns TLS on, and a server that cannot prove its name is refused."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from structlog.testing import capture_logs
from typing_extensions import override
from yarl import URL

from integration.messaging.bench import MIN_SCALE, SERVICE, Bench
from integration.security.certificates import Authority
from integration.security.conftest import TlsBroker
from integration.security.postgres_tls import tls_in_front_of
from local_stack.servers import Database as PostgresServer
from local_stack.urls import Address, login_of
from nexus_contracts import ToolExecuted, read_event
from nexus_database import DatabaseUnavailableError
from nexus_messaging.consumer import Consumer
from nexus_messaging.errors import PublishError
from nexus_messaging.message import Delivery
from nexus_messaging.publisher import Publisher
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from support.databases import opened
from support.events import tool_run
from support.vhost import Vhost
from support.waiting import eventually

CERTIFIED = "localhost"
UNCERTIFIED = "127.0.0.1"


@dataclass(frozen=True)
class TlsVhost(Vhost):
    """A vhost that services reach by TLS; the administrator's connection is not encrypted."""

    port: int
    ca: Path | None
    host: str = CERTIFIED

    @override
    def url(self, user: str) -> str:
        """Return ``user``'s URL, with the authority to trust in it."""
        trust = "" if self.ca is None else f"?cafile={quote(str(self.ca))}"
        return f"amqps://{user}:{self.password}@{self.host}:{self.port}/{self.name}{trust}"


@pytest.fixture
async def vhost(tls_broker: TlsBroker) -> AsyncIterator[TlsVhost]:
    """Return a vhost of the broker with TLS."""
    name, ca = f"secure-{secrets.token_hex(4)}", tls_broker.authority.certificate
    fresh = TlsVhost(tls_broker.node, name, secrets.token_hex(8), tls_broker.port, ca)
    await fresh.create(tier_scale=MIN_SCALE)
    yield fresh
    await fresh.delete()


@pytest.mark.parametrize("kind", ["batch", "single"])
async def test_services_consume_and_publish_over_tls(vhost: TlsVhost, kind: str) -> None:
    """`amqps` and `cafile` in the URL: each kind of consumer, and the publisher of its copies."""
    bench = Bench(vhost, kind)
    bench.behave = _read

    async with bench.consuming():
        await vhost.publish(tool_run())
        await vhost.publish_raw(b"no event", "tool.executed.v1")
        await bench.all_done(1)
        await bench.dead_letters(1)
        encrypted = await eventually(lambda: _encryption(vhost), lambda each: len(each) >= 2)

    assert set(encrypted) == {True}


async def _read(delivery: Delivery) -> Outcome:
    read_event(delivery.message.body, [ToolExecuted])
    return Done()


async def _encryption(vhost: Vhost) -> list[bool]:
    """Return for each of the service's connections whether the broker reports encryption."""
    connections = await vhost.ask("GET", "vhosts/{vhost}/connections")
    return [each["ssl"] for each in connections if each.get("user") == SERVICE]


@pytest.fixture(params=["no authority", "another authority's", "another host name"])
def distrusted(request: pytest.FixtureRequest, vhost: TlsVhost, uncertified: Authority) -> str:
    """Return a URL of the same broker with which its certificate does not verify."""
    vhosts = {
        "no authority": replace(vhost, ca=None),
        "another authority's": replace(vhost, ca=uncertified.certificate),
        "another host name": replace(vhost, host=UNCERTIFIED),
    }
    return vhosts[request.param].url(SERVICE)


async def test_publisher_refuses_a_broker_it_cannot_trust(distrusted: str) -> None:
    """The error is that the broker is not reachable, without the URL's password."""
    with pytest.raises(PublishError, match="not reachable") as refusal:
        await Publisher.connect(distrusted, name=SERVICE)

    assert str(URL(distrusted).password) not in str(refusal.value)


async def test_consumer_refuses_a_broker_it_cannot_trust(distrusted: str) -> None:
    """It logs that, and never consumes."""
    consumer = Consumer(distrusted, TOOL_EXECUTED_QUEUE, prefetch=1, name=SERVICE)
    consumer.start_consuming()

    with capture_logs() as logged:
        running = asyncio.create_task(consumer.run())
        await eventually(_number(logged), lambda number: number >= 1)
        running.cancel()

    assert not consumer.connected
    assert {line["event"] for line in logged} == {"not_consuming"}


def _number(logged: list[Any]) -> Callable[[], Awaitable[int]]:
    async def number() -> int:
        return len(logged)

    return number


@pytest.fixture
async def secured(postgres: PostgresServer, authority: Authority) -> AsyncIterator[str]:
    """Return the superuser's URL of a server that requires TLS, without TLS parameters."""
    plain, login = Address.of(postgres.superuser_url), login_of(postgres.superuser_url)
    context = authority.server_context()
    async with tls_in_front_of(plain.host, plain.port, context) as port:
        yield Address(CERTIFIED, port).postgres_url(login, "postgres")


@pytest.mark.parametrize("rest", ["", "&prepared_statement_cache_size=0"])
async def test_database_url_requests_tls_as_for_psql(
    secured: str, authority: Authority, rest: str
) -> None:
    """`sslmode=verify-full` and `sslrootcert`, also with other parameters."""
    trust = urlencode({"sslmode": "verify-full", "sslrootcert": authority.certificate})

    await _probe(f"{secured}?{trust}{rest}")


async def test_encryption_alone_needs_no_certificate(secured: str) -> None:
    """`sslmode=require` without an authority proves nothing about the server, as with psql."""
    await _probe(f"{secured}?sslmode=require")


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_database_of_an_unknown_authority_is_refused(
    secured: str, uncertified: Authority, mode: str
) -> None:
    """A named authority is required in every mode."""
    trust = urlencode({"sslmode": mode, "sslrootcert": uncertified.certificate})

    with pytest.raises(DatabaseUnavailableError, match="SSLCertVerificationError"):
        await _probe(f"{secured}?{trust}")


async def test_database_with_another_host_name_is_refused(
    secured: str, authority: Authority
) -> None:
    """`verify-full` compares the host in the URL with the certificate; `verify-ca` does not."""
    elsewhere = secured.replace(CERTIFIED, UNCERTIFIED)
    authorities = f"sslrootcert={authority.certificate}"

    await _probe(f"{elsewhere}?sslmode=verify-ca&{authorities}")
    with pytest.raises(DatabaseUnavailableError, match="SSLCertVerificationError"):
        await _probe(f"{elsewhere}?sslmode=verify-full&{authorities}")


async def test_database_that_requires_tls_refuses_plain_sessions(secured: str) -> None:
    """No session without TLS reaches the database, so that the other tests prove something."""
    with pytest.raises(DatabaseUnavailableError):
        await _probe(f"{secured}?sslmode=disable")


async def _probe(url: str) -> None:
    async with opened(url) as database:
        await database.probe()
