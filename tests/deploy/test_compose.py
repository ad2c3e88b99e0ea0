"""What docker-compose.yml promises of every container; no engine is needed to read it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from customer_provisioner.settings import Settings as ProvisionerSettings
from local_stack.rabbitmq_settings import MAX_MESSAGE_BYTES as LOCAL_MAX_MESSAGE_BYTES
from local_stack.rabbitmq_settings import PLUGINS
from nexus_broker_admin.cli import read_settings
from nexus_contracts import MAX_BODY_BYTES
from nexus_messaging.topology import MAX_MESSAGE_BYTES, metering_topology
from nexus_service.settings import ServiceSettings, load
from stripe_reporter.settings import Settings as ReporterSettings
from usage_ingest.settings import Settings as IngestSettings

from .conftest import MOUNTED, ROOT

SETTINGS: dict[str, type[ServiceSettings]] = {
    "customer-provisioner": ProvisionerSettings,
    "usage-ingest": IngestSettings,
    "stripe-reporter": ReporterSettings,
}
SECONDS = {"s": 1, "m": 60}
OURS = "nexus-metering/"

Environment = Callable[[str], Mapping[str, str]]


def test_every_published_port_is_bound_to_loopback(compose: dict[str, Any]) -> None:
    """Nothing is offered to the network: neither broker, database, emulator nor service."""
    ports = [port for each in compose["services"].values() for port in each.get("ports", ())]

    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_every_container_is_confined(compose: dict[str, Any]) -> None:
    """No container may write its image, gain a right, or take the machine's memory."""
    for name, container in compose["services"].items():
        assert container["read_only"] is True, name
        assert container["cap_drop"] == ["ALL"], name
        assert container["security_opt"] == ["no-new-privileges:true"], name
        assert container["mem_limit"], name
        assert container["pids_limit"], name
        assert "privileged" not in container, name


def test_no_container_runs_as_root(compose: dict[str, Any]) -> None:
    """Images of others are given their own user; ours have one that is nobody's."""
    recipes = {
        container["image"]: container["build"]["dockerfile"]
        for container in compose["services"].values()
        if "build" in container
    }

    for name, container in compose["services"].items():
        if not container["image"].startswith(OURS):
            assert container["user"] not in {"root", "0"}, name
            continue
        recipe = (ROOT / recipes[container["image"]]).read_text(encoding="utf-8")
        last = recipe.rpartition("FROM ")[2]
        assert re.search(r"^USER 10001:10001$", last, re.MULTILINE), name
        assert re.search(r'^ENTRYPOINT \["', last, re.MULTILINE), name


def test_a_container_is_given_exactly_the_secrets_it_reads(compose: dict[str, Any]) -> None:
    """A secret that is mounted and unused is a leak; one used and not mounted is no start."""
    for name, container in compose["services"].items():
        if not container["image"].startswith(OURS):
            continue
        words = [
            *container.get("environment", {}).values(),
            *" ".join(container.get("entrypoint", ())).replace(")", " ").split(),
        ]
        read = {word.removeprefix(MOUNTED) for word in words if word.startswith(MOUNTED)}

        assert read == set(container.get("secrets", ())), name


@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_is_told_every_setting_it_has(service: str, environment_of: Environment) -> None:
    """A setting that is forgotten here could not be set; a misspelt one would be ignored."""
    environment = environment_of(service)

    ours = [name for name in environment if not name.startswith("OTEL_")]
    told = {name.removesuffix("_FILE").lower() for name in ours}
    settings = load(SETTINGS[service], environment)

    assert told == set(SETTINGS[service].model_fields)
    assert settings.database_url.get_secret_value().endswith("/" + service.replace("-", "_"))


def test_the_topology_knows_every_user_s_password(environment_of: Environment) -> None:
    """The job that makes the broker's users reads one password for each."""
    settings = read_settings(environment_of("topology"))

    assert set(settings.passwords) == {user.name for user in metering_topology().users}
    assert all(settings.passwords.values())


@pytest.mark.parametrize("service", SETTINGS)
def test_docker_waits_longer_than_the_service_needs_to_stop(
    service: str, compose: dict[str, Any]
) -> None:
    """A service that is killed within its grace would leave messages to be delivered again."""
    container = compose["services"][service]
    number, unit = re.fullmatch(r"(\d+)([sm])", container["stop_grace_period"]).groups()  # type: ignore[union-attr] # no match is a failed test

    assert int(number) * SECONDS[unit] > float(container["environment"]["SHUTDOWN_GRACE_SECONDS"])


@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_starts_after_its_broker_and_its_tables(
    service: str, compose: dict[str, Any]
) -> None:
    """No service meets a broker without its queues or a database of another revision."""
    needed = compose["services"][service]["depends_on"]

    for job in ("topology", f"{service}-migration"):
        assert needed[job] == {"condition": "service_completed_successfully"}


def test_the_broker_takes_messages_of_the_described_size_at_most() -> None:
    """Without the limit, one publisher's messages fill the memory of whoever consumes them."""
    limits = (ROOT / "deploy/docker/rabbitmq/90-metering.conf").read_text(encoding="utf-8")

    assert f"\nmax_message_size = {MAX_MESSAGE_BYTES}\n" in limits
    assert LOCAL_MAX_MESSAGE_BYTES == MAX_MESSAGE_BYTES >= 2 * MAX_BODY_BYTES


def test_the_broker_has_the_same_plugins_as_the_local_one() -> None:
    """Without the shovel plugins nobody could requeue dead letters from the management UI."""
    text = (ROOT / "deploy/docker/rabbitmq/enabled_plugins").read_text(encoding="utf-8")

    assert set(re.findall(r"rabbitmq_\w+", text)) == set(PLUGINS)
