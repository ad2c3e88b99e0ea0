"""Servers that run as processes of this machine: started, waited for, restarted, stopped."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from local_stack.loopback import answers
from local_stack.processes import Child, ChildDiedError
from local_stack.servers import Server


class LocalServer(Server):
    """A server that is a child process.

    Attributes:
        name: What it is called in messages.
        log: The file its output is appended to.
        grace: How many seconds it has to stop before it is killed.
        ready_seconds: How long it may take to become ready.
    """

    name: str
    log: Path
    grace: float = 30.0
    ready_seconds: ClassVar[float] = 60.0
    _child: Child | None = None

    @abstractmethod
    def _start_child(self) -> Child:
        """Start the process without waiting for it."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether it says that it is ready."""

    @property
    def pid(self) -> int | None:
        """The process id; ``None`` before the first start."""
        return None if self._child is None else self._child.pid

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the server and its helpers by name; none before the first start."""
        return {} if self._child is None else {self.name: self._child.pid}

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; ``None`` while it runs or before it ever did."""
        return None if self._child is None else self._child.exit_code

    def launch(self) -> None:
        """Start the process without waiting for it."""
        self._child = self._start_child()

    def await_ready(self) -> None:
        """Wait until it is ready.

        Raises:
            ChildDiedError: If it ends first; the text has the end of its log.
            ChildNotReadyError: If it is not ready in time; likewise.
        """
        self._running.wait_until(lambda: self.ready, seconds=self.ready_seconds)

    def check(self) -> None:
        """Do nothing while the process lives.

        Raises:
            ChildDiedError: If it has ended.
        """
        self._running.check()

    def terminate(self) -> None:
        """Ask it to stop if it runs, without waiting."""
        if self._child is not None:
            self._child.terminate()

    def wait_for_exit(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for it to end; return whether it did."""
        return self._running.wait_for_exit(seconds)

    @override
    def kill(self) -> None:
        """Kill it without warning (SIGKILL); :meth:`restart` recovers it."""
        self._running.kill()

    @override
    def restart(self) -> None:
        """Stop it if it runs, start it with the same settings, and wait until it is ready."""
        self._stop_child()
        self.launch_and_wait()

    def launch_and_wait(self) -> None:
        """Start it and wait until it is ready; kill it if it is not ready in time.

        Raises:
            ChildDiedError: If it ends first; the text has the end of its log.
            ChildNotReadyError: If it is not ready in time; likewise.
        """
        try:
            self.launch()
            self.await_ready()
        except BaseException:
            if self._child is not None:
                self._child.kill()
            raise

    @override
    def stop(self) -> None:
        """Ask it to stop, kill it after its grace, and wait until it has ended."""
        self._stop_child()

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise ChildDiedError(f"{self.name} was never started")
        return self._child

    def _stop_child(self) -> None:
        if self._child is not None:
            self._child.stop(grace=self.grace)


class ServerProcess(LocalServer):
    """A server of this project, or another with an HTTP side."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        url: str,
        ready_path: str,
        log: Path,
        env: Mapping[str, str],
        grace: float,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the server.

        Args:
            name: What it is called in messages.
            command: The program and its arguments.
            url: The base URL of its HTTP side.
            ready_path: What answers with success once it is ready.
            log: The file its output is appended to.
            env: Its whole environment, with its secrets.
            grace: How many seconds it has to stop before it is killed.
            on_start: Called after each start, when the process id has changed.
        """
        self.name = name
        self.url = url
        self.log = log
        self.grace = grace
        self._command = command
        self._ready_url = url + ready_path
        self.env = dict(env)
        self._on_start = on_start

    @property
    @override
    def ready(self) -> bool:
        """Whether ``ready_path`` answers with success."""
        return answers(self._ready_url)

    @override
    def launch(self) -> None:
        """Start the process without waiting for it."""
        super().launch()
        self._on_start()

    @override
    def _start_child(self) -> Child:
        return Child.start(self.name, self._command, log=self.log, env=self.env)
