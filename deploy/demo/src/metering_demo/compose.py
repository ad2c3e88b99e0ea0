"""The stack in containers: docker-compose.yml as a Compose project of the demo's own."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local_stack.catalogue import OPERATOR, VHOST, base_environment
from local_stack.directory_lock import DirectoryLock
from local_stack.errors import LocalStackError
from local_stack.ports import LOOPBACK, free_ports
from local_stack.programs import ProgramFailedError, run_program
from local_stack.rabbitmq_settings import ADMIN
from local_stack.urls import Address, Login
from metering_demo.endpoints import Endpoints

PROJECT: Final = "metering-demo"
PORT_SETTINGS: Final = (
    "AMQP_PORT",
    "MANAGEMENT_PORT",
    "RABBITMQ_METRICS_PORT",
    "POSTGRES_PORT",
    "CUSTOMER_PROVISIONER_PORT",
    "USAGE_INGEST_PORT",
    "STRIPE_REPORTER_PORT",
    "EVENTS_API_PORT",
    "USAGE_API_PORT",
    "STRIPE_EMULATOR_PORT",
)

_UP_SECONDS = 900.0
_DOWN_SECONDS = 180.0


class NoComposeFileError(LocalStackError):
    """The demo was not started in the repository's root."""


@contextmanager
def compose_stack(
    directory: Path, settings: Mapping[str, str], say: Callable[[str], None]
) -> Iterator[Endpoints]:
    """Bring the stack up in containers, yield its endpoints, and delete it with its data.

    It has its own secrets and ports, so it shares nothing with another project of
    docker-compose.yml, and it cannot get a real key of Stripe.

    Args:
        directory: Where the secrets are kept.
        settings: Settings that differ from the defaults.
        say: Called with a line of text after each step.

    Raises:
        NoComposeFileError: If there is no docker-compose.yml here.
        DirectoryInUseError: If a demo runs there.
        ProgramFailedError: If Docker cannot be reached, or a part did not become healthy.
    """
    if not Path("docker-compose.yml").is_file():
        raise NoComposeFileError("no docker-compose.yml here: run this in the repository's root")
    secrets = (directory / "secrets").absolute()
    ports = dict(zip(PORT_SETTINGS, free_ports(*(None for _ in PORT_SETTINGS)), strict=True))
    environment = {**_environment(secrets, ports), **settings}
    lock = DirectoryLock.acquire(directory.absolute())
    try:
        run_program(("deploy/docker/secrets.sh", "emulator"), env=environment, seconds=30)
        # The volumes of a killed demo may have other passwords.
        _compose(environment, "down", "--volumes", seconds=_DOWN_SECONDS)
        _bring_up(environment, say)
        _ensure_plans(environment)
        say("the local Stripe sells the plans")
        yield _endpoints(secrets, ports)
    finally:
        _compose(environment, "down", "--volumes", seconds=_DOWN_SECONDS)
        lock.release()


def _environment(secrets: Path, ports: Mapping[str, int]) -> dict[str, str]:
    return {
        **base_environment(),
        **{name: value for name, value in os.environ.items() if name.startswith("DOCKER_")},
        **{name: str(port) for name, port in ports.items()},
        "SECRETS_DIR": str(secrets),
    }


def _bring_up(environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    _compose(environment, "build", "--quiet", seconds=_UP_SECONDS)
    say("the images are built")
    try:
        _compose(environment, "up", "--wait", seconds=_UP_SECONDS)
    except ProgramFailedError:
        say(_compose(environment, "logs", "--no-color", "--tail", "10", seconds=_DOWN_SECONDS))
        raise
    say("every container is healthy")


def _ensure_plans(environment: Mapping[str, str]) -> None:
    """Make what the plans sell, by the key that the service has at the local Stripe."""
    key = "STRIPE_ADMIN_KEY_FILE=/run/secrets/stripe-secret-key-customer-provisioner"
    once = ("run", "--rm", "--no-deps", "--env", key, "customer-provisioner")
    _compose(environment, *once, "plans", "ensure", "--execute", seconds=_UP_SECONDS)


def _compose(environment: Mapping[str, str], *arguments: str, seconds: float) -> str:
    # Neither a file .env nor an override is read: both belong to the user's own stack.
    files = ("--file", "docker-compose.yml", "--env-file", os.devnull)
    command = ("docker", "compose", *files, "--project-name", PROJECT, "--profile", "demo")
    return run_program(
        (*command, *arguments),
        env=environment,
        seconds=seconds,
        name=f"docker compose {arguments[0]}",
    )


def _endpoints(secrets: Path, ports: Mapping[str, int]) -> Endpoints:
    def secret(name: str) -> str:
        return (secrets / name).read_text(encoding="utf-8").strip()

    def login(user: str) -> Login:
        return Login(user, secret(f"broker-password-{user}"))

    amqp = Address(LOOPBACK, ports["AMQP_PORT"])
    ledger = Login("usage_ingest", secret("database-password-usage-ingest"))
    return Endpoints(
        publisher_amqp=amqp.amqp_url(login("publisher"), VHOST),
        operator_amqp=amqp.amqp_url(login(OPERATOR), VHOST),
        management=Address(LOOPBACK, ports["MANAGEMENT_PORT"]).http_url,
        operator=login(OPERATOR),
        admin=login(ADMIN),
        ledger=Address(LOOPBACK, ports["POSTGRES_PORT"]).postgres_url(ledger, "usage_ingest"),
        ingest=Address(LOOPBACK, ports["USAGE_INGEST_PORT"]).http_url,
        events_api=Address(LOOPBACK, ports["EVENTS_API_PORT"]).http_url,
        provisioner=Address(LOOPBACK, ports["CUSTOMER_PROVISIONER_PORT"]).http_url,
        usage_api=Address(LOOPBACK, ports["USAGE_API_PORT"]).http_url,
        api_key=secret("api-key"),
        accounts_key=secret("accounts-key"),
        emulator=Address(LOOPBACK, ports["STRIPE_EMULATOR_PORT"]).http_url,
        stripe_key=secret("stripe-secret-key-stripe-reporter"),
    )
