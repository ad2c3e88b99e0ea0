"""The settings of a RabbitMQ node: ports, configuration file, environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from local_stack.broker_programs import BrokerPrograms
from local_stack.ports import LOOPBACK, free_ports
from local_stack.urls import Login

ADMIN = "admin"
NODE = "metering@localhost"
PLUGINS = (
    "rabbitmq_management",
    "rabbitmq_prometheus",
    "rabbitmq_shovel",
    "rabbitmq_shovel_management",
)

MAX_MESSAGE_BYTES = 512 * 1024
"""As in production (docs/operations.md)."""

_STANDARD_PORTS = (5672, 15672, 15692)
# One scheduler: on a small machine, idle ones cost CPU time.
_ERLANG_ARGUMENTS = "+S 1:1 +A 4 -kernel inet_dist_use_interface {127,0,0,1}"


@dataclass(frozen=True, slots=True)
class RabbitPorts:
    """The TCP ports of one node: a clash on any of them ends RabbitMQ."""

    amqp: int
    management: int
    prometheus: int
    distribution: int
    epmd: int

    @classmethod
    def choose(cls, *, standard: bool = False) -> Self:
        """Choose free ports; the standard ones for clients where free, if ``standard``."""
        wanted = _STANDARD_PORTS if standard else (None, None, None)
        return cls(*free_ports(*wanted, None, None))


def enabled_plugins() -> str:
    """Write the ``enabled_plugins`` file, an Erlang term."""
    return f"[{', '.join(PLUGINS)}].\n"


def configuration(ports: RabbitPorts, admin: Login) -> str:
    """Write ``rabbitmq.conf`` (https://www.rabbitmq.com/docs/configure)."""
    settings = {
        "listeners.tcp.1": f"{LOOPBACK}:{ports.amqp}",
        "management.tcp.ip": LOOPBACK,
        "management.tcp.port": ports.management,
        "prometheus.tcp.ip": LOOPBACK,
        "prometheus.tcp.port": ports.prometheus,
        "default_user": admin.user,
        "default_pass": admin.password,
        "default_user_tags.administrator": "true",
        "vm_memory_high_watermark.absolute": "1GB",
        "disk_free_limit.absolute": "50MB",
        "max_message_size": MAX_MESSAGE_BYTES,
        # The write-ahead log of quorum queues is kept in memory up to this size (default 512 MB).
        "raft.wal_max_size_bytes": 64 * 1024 * 1024,
        "log.console.level": "info",
    }
    return "".join(f"{key} = {value}\n" for key, value in settings.items())


def environment(here: Path, ports: RabbitPorts, programs: BrokerPrograms) -> dict[str, str]:
    """Build the whole environment; no variable of the caller's may redirect the node.

    The names are those of https://www.rabbitmq.com/docs/configure#supported-environment-variables
    """
    return {
        **programs.environment(),
        "HOME": str(here / "home"),
        "ERL_CRASH_DUMP": str(here / "erl_crash.dump"),
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(ports.amqp),
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
        "RABBITMQ_MNESIA_BASE": str(here / "data"),
        "RABBITMQ_LOG_BASE": str(here / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(here / "node.pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(here / "generated"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG_ARGUMENTS,
        # Makes the script become the node instead of guarding it from a shell, so that the
        # process started is the one to signal.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
