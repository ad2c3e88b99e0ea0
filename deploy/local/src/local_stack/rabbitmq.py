"""A RabbitMQ node of our own: private name, cookie, port mapper, data and ports."""

import secrets
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from local_stack.broker_programs import BrokerPrograms, BrokerUnavailableError, broker_programs
from local_stack.claims import Claim
from local_stack.management import broker_version, listens_for_amqp
from local_stack.ports import LOOPBACK
from local_stack.processes import Child
from local_stack.programs import run_program
from local_stack.rabbitmq_settings import (
    ADMIN,
    NODE,
    RabbitPorts,
    configuration,
    enabled_plugins,
    environment,
)
from local_stack.urls import Address, Login

# Where fetched programs are kept, below the folder the command was called in (the checkout).
_UNPACKED = Path(".local/rabbitmq-programs")
# What a shell would not take as a part of a name. A space costs no more than the disk's alarm.
_SHELL = frozenset("'\"`$\\&|;<>()\n")
_READY_SECONDS = 90.0
_STOP_SECONDS = 30.0
_CTL_SECONDS = 60.0
_REGISTERED_SECONDS = 10.0
_POLL_SECONDS = 0.1


class RabbitNode:
    """One RabbitMQ node in one directory, on the loopback interface."""

    def __init__(
        self, directory: Path, ports: RabbitPorts, programs: BrokerPrograms, claim: Claim
    ) -> None:
        self.directory = directory
        self.ports = ports
        self._programs = programs
        self._claim = claim
        self._epmd: Child | None = None
        self._node: Child | None = None

    @classmethod
    def start(
        cls,
        directory: Path,
        ports: RabbitPorts | None = None,
        *,
        programs: BrokerPrograms | None = None,
    ) -> Self:
        """Start a node on the data in ``directory``, creating it where there is none.

        Args:
            directory: What it keeps: data, configuration, log, the admin's password.
            ports: Where it listens; free ports are chosen by default.
            programs: Which RabbitMQ to run; found or fetched by default (:mod:`broker_programs`).

        Raises:
            BrokerUnavailableError: If there is no RabbitMQ to run here.
            DirectoryInUseError: If a node runs there already.
            ChildDiedError: If the node ended instead of starting.
            ChildNotReadyError: If the node was not ready in time.
        """
        directory = directory.absolute()
        if unfit := _SHELL.intersection(str(directory)):
            raise BrokerUnavailableError(
                f"RabbitMQ can't run in {directory}: it hands its folder to a shell, to which "
                f"{' '.join(sorted(unfit))} means something else. Work in a clone elsewhere"
            )
        found = programs or broker_programs(_UNPACKED)
        claim = Claim.take(directory)
        try:
            node = cls(directory, ports or RabbitPorts.choose(), found, claim)
            node._configure()
            node._launch()
        except BaseException:
            claim.release()
            raise
        return node

    @property
    def admin(self) -> Login:
        """The administrator, for the management API; may do everything in every vhost."""
        return Login(ADMIN, self._password_file.read_text(encoding="utf-8"))

    @property
    def management_url(self) -> str:
        """The management API's base URL, without credentials."""
        return Address(LOOPBACK, self.ports.management).http_url

    @property
    def management_url_with_login(self) -> str:
        """The management API's base URL with the administrator's login: a secret."""
        return Address(LOOPBACK, self.ports.management).http_url_with(self.admin)

    @property
    def metrics_url(self) -> str:
        """What a Prometheus scrapes."""
        return f"http://{LOOPBACK}:{self.ports.prometheus}/metrics"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.directory / "rabbitmq.log"

    @property
    def version(self) -> str:
        """The broker's version, such as ``3.10.8``."""
        return broker_version(self.management_url, self.admin)

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the node and of its port mapper; none once it has been stopped."""
        return tuple(child.pid for child in (self._node, self._epmd) if child is not None)

    def amqp_url(self, user: str, password: str, vhost: str = "/") -> str:
        """Build the AMQP connection URL of ``user`` to ``vhost``."""
        return Address(LOOPBACK, self.ports.amqp).amqp_url(Login(user, password), vhost)

    def check(self) -> None:
        """Do nothing while the node lives.

        Raises:
            ChildDiedError: If it has ended.
        """
        self._running.check()

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on this node and return what it printed.

        Raises:
            ProgramFailedError: If the command failed.
        """
        return run_program(
            [self._programs.scripts / "rabbitmqctl", "-n", NODE, *arguments],
            env=environment(self.directory, self.ports, self._programs),
            cwd=self._programs.scripts,
            seconds=_CTL_SECONDS,
        )

    def kill(self) -> None:
        """End the node as a crash would (SIGKILL); :meth:`restart` recovers it.

        Waits first until the quorum queues are in the node's register on disk, which it writes up
        to three seconds late: killed before that, RabbitMQ 3.10 forgets a fresh queue together
        with its confirmed messages, and that is not what the caller wants to see.
        """
        deadline = time.monotonic() + _REGISTERED_SECONDS
        while not self._queues_registered() and time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_SECONDS)
        self._running.kill()

    def restart(self) -> None:
        """Stop the node if it runs, and start it on the same data and ports."""
        self._running.stop(grace=_STOP_SECONDS)
        self._launch()

    def stop(self) -> None:
        """Stop the node and its port mapper, and give the directory up."""
        for child in (self._node, self._epmd):
            if child is not None:
                child.stop(grace=_STOP_SECONDS)
        if self._node is not None:
            self._claim.release()
        self._node = self._epmd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _running(self) -> Child:
        if self._node is None:
            raise BrokerUnavailableError("this RabbitMQ node has been stopped")
        return self._node

    @property
    def _password_file(self) -> Path:
        return self.directory / "admin.password"

    def _configure(self) -> None:
        if not self._password_file.exists():
            self._password_file.touch(mode=0o600)
            self._password_file.write_text(secrets.token_urlsafe(24), encoding="utf-8")
        config = self.directory / "rabbitmq.conf"
        config.touch(mode=0o600)
        config.write_text(configuration(self.ports, self.admin), encoding="utf-8")
        (self.directory / "enabled_plugins").write_text(enabled_plugins(), encoding="utf-8")
        (self.directory / "home").mkdir(mode=0o700, exist_ok=True)

    def _launch(self) -> None:
        if self._epmd is None or not self._epmd.alive:
            # Started here, because the one a node starts for itself leaves our process tree.
            self._epmd = Child.start(
                "epmd",
                [self._programs.erlang / "epmd"],
                log=self.directory / "epmd.log",
                env=environment(self.directory, self.ports, self._programs),
            )
        try:
            self._node = Child.start(
                "RabbitMQ",
                [self._programs.scripts / "rabbitmq-server"],
                log=self.log,
                env=environment(self.directory, self.ports, self._programs),
                cwd=self._programs.scripts,
            )
            self._claim.note(*self.pids)
            self._node.wait_until(self._accepts, seconds=_READY_SECONDS)
        except BaseException:
            for child in (self._node, self._epmd):
                if child is not None:
                    child.kill()
            raise

    def _queues_registered(self) -> bool:
        """Look for each quorum queue's folder, named for its id, in the register beside it."""
        for register in self.directory.glob("data/*/quorum/*/names.dets"):
            known = register.read_bytes()
            folders = (entry.name for entry in register.parent.iterdir() if entry.is_dir())
            if any(folder.encode() not in known for folder in folders):
                return False
        return True

    def _accepts(self) -> bool:
        return listens_for_amqp(self.management_url, self.admin, self.ports.amqp)
