"""The broker and the database in containers, where a Docker engine answers."""

import os
import secrets
import socket
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Self

import docker
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from typing_extensions import override

from local_stack.errors import LocalStackError
from local_stack.management import listens_for_amqp
from local_stack.ports import LOOPBACK, free_ports
from local_stack.rabbitmq_settings import ADMIN, MAX_MESSAGE_BYTES, enabled_plugins
from local_stack.servers import Broker, Database, Server
from local_stack.sql import SqlFailedError, run_sql
from local_stack.urls import Address, Login

RABBITMQ_IMAGE = "rabbitmq:4-management"
POSTGRES_IMAGE = "postgres:18"

_PULL_SECONDS = 60.0
_SILENCE_SECONDS = 15
_READY_SECONDS = 90.0
_STOP_SECONDS = 30
_POLL_SECONDS = 0.2
_AMQP, _MANAGEMENT, _POSTGRES = 5672, 15672, 5432

# Its reaper would be one more image to pull; the objects here remove their containers.
testcontainers_config.ryuk_disabled = True


class ContainerNotReadyError(LocalStackError):
    """A container did not become ready in time; the text has the end of its log."""


def engine_offers(image: str) -> bool:
    """Return whether a Docker engine of this machine answers and has ``image`` or can pull it."""
    if not _engine_listens():
        return False
    try:
        client = docker.from_env(timeout=_SILENCE_SECONDS)
        try:
            return _has(client, image)
        finally:
            client.close()
    except (DockerException, OSError):
        return False


class _Container(Server):
    """One container whose published ports stay the same across a kill and a restart."""

    def __init__(self, image: str, ports: Mapping[int, int], settings: Mapping[str, str]) -> None:
        self._image = image
        self._container = DockerContainer(image).with_envs(**settings)
        for inside, outside in ports.items():
            self._container.ports[f"{inside}/tcp"] = (LOOPBACK, outside)  # type: ignore[assignment] # Docker accepts an address with the port; the annotation does not say so

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether the server accepts clients."""

    def start(self) -> Self:
        """Start the container and wait until its server is ready; remove it if it never is.

        Raises:
            ContainerNotReadyError: If it was not ready in time.
        """
        try:
            self._container.start()
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        return self

    @override
    def kill(self) -> None:
        """End the container's processes without warning; :meth:`restart` recovers the server."""
        self._container.get_wrapped_container().kill()

    @override
    def restart(self) -> None:
        """Stop the container if it runs, start it on the same data and ports, await it."""
        self._container.get_wrapped_container().restart(timeout=_STOP_SECONDS)
        self._await_ready()

    @override
    def stop(self) -> None:
        """Stop the container and delete it with its data."""
        self._container.stop()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self.ready:
            if time.monotonic() > deadline:
                log = self._container.get_wrapped_container().logs(tail=30).decode()
                raise ContainerNotReadyError(f"{self._image} is not ready:\n{log}")
            time.sleep(_POLL_SECONDS)


class RabbitContainer(_Container, Broker):
    """RabbitMQ's official image, with a fresh node."""

    def __init__(self) -> None:
        amqp, management = free_ports(None, None)
        self.amqp = Address(LOOPBACK, amqp)
        self.management = Address(LOOPBACK, management)
        self.admin = Login(ADMIN, secrets.token_urlsafe(24))
        super().__init__(
            RABBITMQ_IMAGE,
            {_AMQP: amqp, _MANAGEMENT: management},
            {
                "RABBITMQ_DEFAULT_USER": self.admin.user,
                "RABBITMQ_DEFAULT_PASS": self.admin.password,
            },
        )
        for path, content in (
            ("enabled_plugins", enabled_plugins()),
            ("conf.d/90-metering.conf", f"max_message_size = {MAX_MESSAGE_BYTES}\n"),
        ):
            self._container.with_copy_into_container(content.encode(), f"/etc/rabbitmq/{path}")

    @property
    @override
    def ready(self) -> bool:
        """Whether the AMQP listener is up."""
        return listens_for_amqp(self.management_url, self.admin, _AMQP)


class PostgresContainer(_Container, Database):
    """PostgreSQL's official image, with a fresh server."""

    def __init__(self) -> None:
        self.address = Address(LOOPBACK, *free_ports(None))
        password = secrets.token_urlsafe(24)
        self.superuser_url = self.url("postgres", "postgres", password)
        super().__init__(
            POSTGRES_IMAGE, {_POSTGRES: self.address.port}, {"POSTGRES_PASSWORD": password}
        )

    @property
    @override
    def ready(self) -> bool:
        """Whether a statement succeeds."""
        try:
            run_sql(self.superuser_url, "SELECT 1")
        except SqlFailedError:
            return False
        return True


def _engine_listens() -> bool:
    """Try the engine's socket: Docker's client leaks one each time there is no answer.

    An engine elsewhere is left alone: the ports it publishes are not on our loopback interface.
    """
    kind, _, path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    if kind != "unix":
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
        engine.settimeout(_SILENCE_SECONDS)
        return engine.connect_ex(path) == 0


def _has(client: docker.DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        deadline = time.monotonic() + _PULL_SECONDS
        repository, _, tag = image.partition(":")
        for progress in client.api.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in progress or time.monotonic() > deadline:
                return False
        client.images.get(image)
    return True
