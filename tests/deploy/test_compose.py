"""What docker-compose.yml guarantees for every container; no container engine is needed."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from customer_provisioner.settings import Settings as ProvisionerSettings
from local_stack.rabbitmq_settings import MAX_MESSAGE_BYTES as LOCAL_MAX_MESSAGE_BYTES
from local_stack.rabbitmq_settings import PLUGINS
from nexus_broker_admin.cli import read_settings
from nexus_contracts import MAX_BODY_BYTES
from nexus_messaging.description import metering_topology
from nexus_messaging.topology import MAX_MESSAGE_BYTES
from nexus_service.settings import ServiceSettings, load
from stripe_reporter.settings import Settings as ReporterSettings
from usage_ingest.events_api.settings import Settings as EventsApiSettings
from usage_ingest.settings import Settings as IngestSettings
from usage_ingest.usage_api.settings import Settings as UsageApiSettings

from .conftest import MOUNTED, ROOT

SETTINGS: dict[str, type[ServiceSettings]] = {
    "customer-provisioner": ProvisionerSettings,
    "usage-ingest": IngestSettings,
    "stripe-reporter": ReporterSettings,
}
SECONDS = {"s": 1, "m": 60}
OURS = "nexus-metering/"

Environment = Callable[[str], Mapping[str, str]]


def test_published_ports_are_bound_to_loopback(compose: dict[str, Any]) -> None:
    """Neither broker, database, emulator nor a service listens on the network."""
    ports = [port for each in compose["services"].values() for port in each.get("ports", ())]

    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_every_container_is_confined(compose: dict[str, Any]) -> None:
    """No container can write to its image, gain a privilege, or use all memory."""
    for name, container in compose["services"].items():
        assert container["read_only"] is True, name
        assert container["cap_drop"] == ["ALL"], name
        assert container["security_opt"] == ["no-new-privileges:true"], name
        assert container["mem_limit"], name
        assert container["pids_limit"], name
        assert "privileged" not in container, name


def test_no_container_runs_as_root(compose: dict[str, Any]) -> None:
    """Third-party images run as their own user, ours as one without any other use."""
    dockerfiles = {
        container["image"]: container["build"]["dockerfile"]
        for container in compose["services"].values()
        if "build" in container
    }

    for name, container in compose["services"].items():
        if not container["image"].startswith(OURS):
            assert container["user"] not in {"root", "0"}, name
            continue
        dockerfile = (ROOT / dockerfiles[container["image"]]).read_text(encoding="utf-8")
        last = dockerfile.rpartition("FROM ")[2]
        assert re.search(r"^USER 10001:10001$", last, re.MULTILINE), name
        assert re.search(r'^ENTRYPOINT \["', last, re.MULTILINE), name


def test_container_mounts_exactly_the_secrets_it_reads(compose: dict[str, Any]) -> None:
    """An unused secret is a leak; with a missing one the container does not start."""
    for name, container in compose["services"].items():
        if not container["image"].startswith(OURS):
            continue
        words = [
            *container.get("environment", {}).values(),
            *" ".join(container.get("entrypoint", ())).replace(")", " ").split(),
        ]
        read = {word.removeprefix(MOUNTED) for word in words if word.startswith(MOUNTED)}

        assert read == set(container.get("secrets", ())), name


def fields_given(environment: Mapping[str, str], kind: type[BaseModel]) -> set[str]:
    """Return the settings that an environment has, by themselves or as a file with the value."""
    ours = [name for name in environment if not name.startswith("OTEL_")]
    files = {name for name in ours if name.lower() not in kind.model_fields}
    return {(name.removesuffix("_FILE") if name in files else name).lower() for name in ours}


@pytest.mark.parametrize("service", SETTINGS)
def test_service_is_given_every_setting_it_has(service: str, environment_of: Environment) -> None:
    """A forgotten setting could not be set; a misspelt one would be ignored."""
    environment = environment_of(service)

    settings = load(SETTINGS[service], environment)

    # The administrator's key is for one command; the service refuses to start with it.
    settable = set(SETTINGS[service].model_fields) - {"stripe_admin_key"}
    assert fields_given(environment, SETTINGS[service]) == settable
    assert settings.database_url.get_secret_value().endswith("/" + service.replace("-", "_"))


def test_events_api_is_given_every_setting_it_has(environment_of: Environment) -> None:
    """It logs in as the publisher, with the keys that the script made, and has no database."""
    environment = environment_of("events-api")

    settings = load(EventsApiSettings, environment)

    assert fields_given(environment, EventsApiSettings) == set(EventsApiSettings.model_fields)
    assert settings.amqp_url.get_secret_value().startswith("amqp://publisher:")
    assert settings.api_keys


def test_usage_api_is_given_every_setting_it_has(environment_of: Environment) -> None:
    """It logs in as the role that only reads, and has no broker."""
    environment = environment_of("usage-api")

    settings = load(UsageApiSettings, environment)

    assert fields_given(environment, UsageApiSettings) == set(UsageApiSettings.model_fields)
    assert settings.database_url.get_secret_value().startswith("postgresql://usage_reader:")
    assert settings.api_keys[0].may_read("entitlements.read")


def test_topology_job_has_the_password_of_every_user(environment_of: Environment) -> None:
    """The job that makes the broker's users reads one password for each."""
    settings = read_settings(environment_of("topology"))

    assert set(settings.passwords) == {user.name for user in metering_topology().users}
    assert all(settings.passwords.values())


@pytest.mark.parametrize("service", SETTINGS)
def test_docker_waits_longer_than_the_grace_of_a_service(
    service: str, compose: dict[str, Any]
) -> None:
    """The messages of a service that is killed within its grace are delivered again."""
    container = compose["services"][service]
    number, unit = re.fullmatch(r"(\d+)([sm])", container["stop_grace_period"]).groups()  # type: ignore[union-attr] # no match is a failed test

    assert int(number) * SECONDS[unit] > float(container["environment"]["SHUTDOWN_GRACE_SECONDS"])


@pytest.mark.parametrize("service", SETTINGS)
def test_service_starts_after_its_broker_and_its_tables(
    service: str, compose: dict[str, Any]
) -> None:
    """No service starts on a broker without queues or a database of another revision."""
    needed = compose["services"][service]["depends_on"]

    for job in ("topology", f"{service}-migration"):
        assert needed[job] == {"condition": "service_completed_successfully"}


def test_broker_limits_the_size_of_messages() -> None:
    """Without the limit, one publisher's messages could fill the memory of their consumer."""
    limits = (ROOT / "deploy/docker/rabbitmq/90-metering.conf").read_text(encoding="utf-8")

    assert f"\nmax_message_size = {MAX_MESSAGE_BYTES}\n" in limits
    assert LOCAL_MAX_MESSAGE_BYTES == MAX_MESSAGE_BYTES >= 2 * MAX_BODY_BYTES


def test_broker_has_the_plugins_of_the_local_one() -> None:
    """Without the shovel plugins dead letters cannot be moved in the management UI."""
    text = (ROOT / "deploy/docker/rabbitmq/enabled_plugins").read_text(encoding="utf-8")

    assert set(re.findall(r"rabbitmq_\w+", text)) == set(PLUGINS)


def test_files_of_the_host_are_read_only_and_exist(compose: dict[str, Any]) -> None:
    """Docker makes a folder, owned by root, of what is not there; a service may write to none."""
    mounts = {
        mount
        for container in compose["services"].values()
        for mount in container.get("volumes", ())
        if isinstance(mount, str) and mount.startswith("./")
    }

    assert {
        source for mount in mounts if not (ROOT / (source := mount.split(":")[0])).exists()
    } == set()
    assert {mount for mount in mounts if not mount.endswith(":ro")} == set()


def test_what_an_operator_names_is_mounted_whatever_its_path_is() -> None:
    """In the short form a `:` ends a path, `plans.yaml` is a volume, and Docker makes a folder.

    It makes it of a mistyped path, owned by root.
    """
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    mounts = [
        mount
        for container in yaml.safe_load(text)["services"].values()
        for mount in container.get("volumes", ())
        if "$" in str(mount)
    ]

    assert len(mounts) == 5
    for mount in mounts:
        assert isinstance(mount, dict), mount
        assert (mount["type"], mount["read_only"]) == ("bind", True)
        assert mount["bind"] == {"create_host_path": False}


@pytest.mark.parametrize("name", ["customer-provisioner", "usage-ingest", "usage-api"])
def test_file_of_plans_is_mounted_where_its_setting_says(name: str) -> None:
    """With ``PLANS_FILE`` all three read the same file; without it there are no plans."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]

    setting = services[name]["environment"]["PLANS_FILE"]
    inside = re.fullmatch(r"\$\{PLANS_FILE:\+(.+)\}", setting)
    assert inside is not None
    [mount] = [each for each in services[name]["volumes"] if each["target"] == inside[1]]
    assert mount["source"] == "${PLANS_FILE:-./deploy/plans.yaml}"
