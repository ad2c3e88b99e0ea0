"""The broker and the database in containers, where a Docker engine answers."""

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

import docker
from docker.errors import DockerException, ImageNotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from local_stack.errors import LocalStackError
from local_stack.management import broker_version, listens_for_amqp
from local_stack.ports import LOOPBACK, free_ports
from local_stack.rabbitmq_settings import ADMIN, MAX_MESSAGE_BYTES, enabled_plugins
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

# Its reaper is one more image to pull, and the objects here stop their containers themselves.
testcontainers_config.ryuk_disabled = True


class ContainerNotReadyError(LocalStackError):
    """A container did not become ready in time; the text has the end of its log."""


def engine_offers(image: str) -> bool:
    """Tell whether a Docker engine of this machine answers and has ``image`` or can pull it."""
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


class _Server:
    """One container whose published ports stay the same across a kill and a restart."""

    def __init__(self, image: str, ports: Mapping[int, int], settings: Mapping[str, str]) -> None:
        self._container = DockerContainer(image).with_envs(**settings)
        for inside, outside in ports.items():
            self._container.ports[f"{inside}/tcp"] = (LOOPBACK, outside)  # type: ignore[assignment] # Docker takes an address with the port; the annotation does not say so
        self._name = image

    def launch(self, ready: Callable[[], bool]) -> None:
        """Start the container and wait until it is ready; remove it if it never is."""
        try:
            self._container.start()
            self._await(ready)
        except BaseException:
            self._container.stop()
            raise

    def put(self, content: str, path: str) -> None:
        """Place a file in the container before it starts."""
        self._container.with_copy_into_container(content.encode(), path)

    def kill(self) -> None:
        """End the container's processes without warning."""
        self._container.get_wrapped_container().kill()

    def restart(self, ready: Callable[[], bool]) -> None:
        """Stop the container if it runs, start it on the same data and ports, await it."""
        self._container.get_wrapped_container().restart(timeout=_STOP_SECONDS)
        self._await(ready)

    def remove(self) -> None:
        """Stop the container and delete it with its data."""
        self._container.stop()

    def _await(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            if time.monotonic() > deadline:
                log = self._container.get_wrapped_container().logs(tail=30).decode()
                raise ContainerNotReadyError(f"{self._name} is not ready:\n{log}")
            time.sleep(_POLL_SECONDS)


class RabbitContainer:
    """RabbitMQ's official image, used like :class:`local_stack.rabbitmq.RabbitNode`."""

    def __init__(self) -> None:
        self._amqp, self._management = free_ports(None, None)
        self.admin = Login(ADMIN, secrets.token_urlsafe(24))
        self._server = _Server(
            RABBITMQ_IMAGE,
            {_AMQP: self._amqp, _MANAGEMENT: self._management},
            {
                "RABBITMQ_DEFAULT_USER": self.admin.user,
                "RABBITMQ_DEFAULT_PASS": self.admin.password,
            },
        )
        self._server.put(enabled_plugins(), "/etc/rabbitmq/enabled_plugins")
        limit = f"max_message_size = {MAX_MESSAGE_BYTES}\n"
        self._server.put(limit, "/etc/rabbitmq/conf.d/90-metering.conf")

    @classmethod
    def start(cls) -> Self:
        """Start a container with a fresh node.

        Raises:
            ContainerNotReadyError: If it was not ready in time.
        """
        broker = cls()
        broker._server.launch(broker._accepts)
        return broker

    @property
    def management_url(self) -> str:
        """The management API's base URL, without credentials."""
        return Address(LOOPBACK, self._management).http_url

    @property
    def version(self) -> str:
        """The broker's version, such as ``4.1.4``."""
        return broker_version(self.management_url, self.admin)

    def amqp_url(self, user: str, password: str, vhost: str = "/") -> str:
        """Build the AMQP connection URL of ``user`` to ``vhost``."""
        return Address(LOOPBACK, self._amqp).amqp_url(Login(user, password), vhost)

    def kill(self) -> None:
        """End the node as a crash would; :meth:`restart` recovers it."""
        self._server.kill()

    def restart(self) -> None:
        """Stop the node if it runs, and start it on the same data and ports."""
        self._server.restart(self._accepts)

    def stop(self) -> None:
        """Stop the node and delete its data."""
        self._server.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _accepts(self) -> bool:
        return listens_for_amqp(self.management_url, self.admin, _AMQP)


class PostgresContainer:
    """PostgreSQL's official image, used like :class:`local_stack.postgres.PostgresServer`."""

    def __init__(self) -> None:
        (self.port,) = free_ports(None)
        self._superuser = Login("postgres", secrets.token_urlsafe(24))
        self._server = _Server(
            POSTGRES_IMAGE,
            {_POSTGRES: self.port},
            {"POSTGRES_PASSWORD": self._superuser.password},
        )

    @classmethod
    def start(cls) -> Self:
        """Start a container with a fresh server.

        Raises:
            ContainerNotReadyError: If it was not ready in time.
        """
        database = cls()
        database._server.launch(database._accepts)
        return database

    @property
    def superuser_url(self) -> str:
        """The superuser's connection URL, with the password."""
        return self.url("postgres", self._superuser.user, self._superuser.password)

    @property
    def version(self) -> str:
        """The server's version, such as ``18.1``."""
        return run_sql(self.superuser_url, "SHOW server_version").strip()

    def url(self, database: str, role: str, password: str) -> str:
        """Build the connection URL of ``role`` to ``database``."""
        return Address(LOOPBACK, self.port).postgres_url(Login(role, password), database)

    def kill(self) -> None:
        """End the server as a crash would; :meth:`restart` recovers it."""
        self._server.kill()

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same data and port."""
        self._server.restart(self._accepts)

    def stop(self) -> None:
        """Stop the server and delete its data."""
        self._server.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _accepts(self) -> bool:
        try:
            run_sql(self.superuser_url, "SELECT 1")
        except SqlFailedError:
            return False
        return True


def _engine_listens() -> bool:
    """Try the engine's socket: Docker's client leaks one each time nobody answers.

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
