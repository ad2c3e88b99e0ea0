"""A RabbitMQ node of our own: private name, cookie, port mapper, data and ports."""

import secrets
import time
from dataclasses import astuple
from pathlib import Path
from typing import Self

from typing_extensions import override

from local_stack.broker_programs import BrokerPrograms, BrokerUnavailableError, broker_programs
from local_stack.directory_lock import DirectoryLock, write_secret
from local_stack.management import listens_for_amqp
from local_stack.ports import LOOPBACK, PortTakenError, listens
from local_stack.processes import Child, ChildDiedError
from local_stack.programs import run_program
from local_stack.rabbitmq_settings import (
    ADMIN,
    NODE,
    RabbitPorts,
    configuration,
    enabled_plugins,
    environment,
)
from local_stack.server_process import LocalServer
from local_stack.servers import Broker
from local_stack.urls import Address, Login

# Where fetched programs are kept, below the folder the command was called in (the checkout).
_UNPACKED = Path(".local/rabbitmq-programs")
# Characters with a meaning to a shell. A space in the path disables no more than the disk alarm.
_SHELL = frozenset("'\"`$\\&|;<>()\n")
_CTL_SECONDS = 60.0
_REGISTERED_SECONDS = 10.0
_POLL_SECONDS = 0.1


class RabbitNode(LocalServer, Broker):
    """One RabbitMQ node in one directory, on the loopback interface."""

    name = "RabbitMQ"
    ready_seconds = 90.0

    def __init__(
        self, directory: Path, ports: RabbitPorts, programs: BrokerPrograms, lock: DirectoryLock
    ) -> None:
        self.directory = directory
        self.ports = ports
        self.amqp = Address(LOOPBACK, ports.amqp)
        self.management = Address(LOOPBACK, ports.management)
        self.log = directory / "rabbitmq.log"
        self.admin = self._configure()
        self._programs = programs
        self._lock = lock
        self._epmd: Child | None = None

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
            directory: What it keeps: data, configuration, log, the administrator's password.
            ports: Where it listens; free ports are chosen by default.
            programs: Which RabbitMQ to run; found or fetched by default (:mod:`broker_programs`).

        Raises:
            BrokerUnavailableError: If there is no RabbitMQ to run here.
            DirectoryInUseError: If a node runs there already.
            PortTakenError: If another program listens on one of its ports.
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
        lock = DirectoryLock.acquire(directory)
        try:
            node = cls(directory, ports or RabbitPorts.choose(), found, lock)
        except BaseException:
            lock.release()
            raise
        try:
            node.launch_and_wait()
        except ChildDiedError:
            node.stop()
            # All of its processes have ended: who listens there now is another program.
            if taken := [str(port) for port in astuple(node.ports) if listens(port)]:
                text = f"RabbitMQ can't start: another program listens on port {', '.join(taken)}"
                raise PortTakenError(text) from None
            raise
        except BaseException:
            node.stop()
            raise
        return node

    @property
    @override
    def ready(self) -> bool:
        """Whether its AMQP listener is up."""
        return listens_for_amqp(self.management_url, self.admin, self.ports.amqp)

    @property
    def management_url_with_login(self) -> str:
        """The management API's base URL with the administrator's login: a secret."""
        return self.management.http_url_with(self.admin)

    @property
    def metrics_url(self) -> str:
        """What a Prometheus scrapes."""
        return f"http://{LOOPBACK}:{self.ports.prometheus}/metrics"

    @property
    @override
    def pids(self) -> dict[str, int]:
        """The process ids of the node and of its port mapper; none before the first start."""
        return super().pids | ({} if self._epmd is None else {"epmd": self._epmd.pid})

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on this node and return what it printed.

        Raises:
            ProgramFailedError: If the command failed.
        """
        return run_program(
            [self._programs.scripts / "rabbitmqctl", "-n", NODE, *arguments],
            env=self._environment,
            cwd=self._programs.scripts,
            seconds=_CTL_SECONDS,
        )

    @override
    def launch(self) -> None:
        """Start the node, and its port mapper if that does not run, without waiting."""
        if self._epmd is None or not self._epmd.alive:
            # Started here, because the one a node starts for itself leaves our process tree.
            self._epmd = Child.start(
                "epmd",
                [self._programs.erlang / "epmd"],
                log=self.directory / "epmd.log",
                env=self._environment,
            )
        super().launch()
        self._lock.write_pids(*self.pids.values())

    @override
    def kill(self) -> None:
        """End the node as a crash would (SIGKILL); :meth:`restart` recovers it.

        Waits first until the quorum queues are in the node's register on disk, which it writes up
        to three seconds late: killed before that, RabbitMQ 3.10 forgets a fresh queue together
        with its confirmed messages, which is no crash that a caller wants to test.
        """
        deadline = time.monotonic() + _REGISTERED_SECONDS
        while not self._queues_registered() and time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_SECONDS)
        super().kill()

    @override
    def stop(self) -> None:
        """Stop the node and its port mapper, and release the directory."""
        super().stop()
        if self._epmd is not None:
            self._epmd.stop(grace=self.grace)
        self._lock.release()

    @property
    def _environment(self) -> dict[str, str]:
        return environment(self.directory, self.ports, self._programs)

    @override
    def _start_child(self) -> Child:
        return Child.start(
            self.name,
            [self._programs.scripts / "rabbitmq-server"],
            log=self.log,
            env=self._environment,
            cwd=self._programs.scripts,
        )

    def _configure(self) -> Login:
        """Write the node's files; return the administrator, whose password outlives a restart."""
        password = self.directory / "admin.password"
        if not password.exists():
            write_secret(password, secrets.token_urlsafe(24))
        admin = Login(ADMIN, password.read_text(encoding="utf-8"))
        write_secret(self.directory / "rabbitmq.conf", configuration(self.ports, admin))
        (self.directory / "enabled_plugins").write_text(enabled_plugins(), encoding="utf-8")
        (self.directory / "home").mkdir(mode=0o700, exist_ok=True)
        return admin

    def _queues_registered(self) -> bool:
        """Look for each quorum queue's folder, named for its id, in the register beside it."""
        for register in self.directory.glob("data/*/quorum/*/names.dets"):
            known = register.read_bytes()
            folders = (entry.name for entry in register.parent.iterdir() if entry.is_dir())
            if any(folder.encode() not in known for folder in folders):
                return False
        return True
