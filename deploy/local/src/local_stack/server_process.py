"""A part of the stack with an HTTP side: started, ready, restarted on the same port."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from local_stack.loopback import answers
from local_stack.processes import Child, ChildDiedError

_READY_SECONDS = 60.0


class ServerProcess:
    """One server of this project as a process of its own."""

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
        on_start: Callable[[], None],
    ) -> None:
        """Prepare the server.

        Args:
            name: What it is called in messages.
            command: The program and its arguments.
            url: The base URL of its HTTP side.
            ready_path: What answers with success once it is ready.
            log: The file its output is appended to.
            env: Its whole environment.
            grace: How many seconds it has to stop before it is killed.
            on_start: Called after each start, when the process id has changed.
        """
        self.name = name
        self.url = url
        self.log = log
        self._command = command
        self._ready_url = url + ready_path
        self._env = env
        self._grace = grace
        self._on_start = on_start
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process id; ``None`` before the first start."""
        return None if self._child is None else self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.alive

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; ``None`` while it runs or before it ever did."""
        return None if self._child is None else self._child.exit_code

    @property
    def ready(self) -> bool:
        """Whether it says that it is ready."""
        return answers(self._ready_url)

    def launch(self) -> None:
        """Start the process without waiting for it."""
        self._child = Child.start(self.name, self._command, log=self.log, env=self._env)
        self._on_start()

    def await_ready(self, *, seconds: float = _READY_SECONDS) -> None:
        """Wait until it is ready.

        Raises:
            ChildDiedError: If it ends first.
            ChildNotReadyError: If it is not ready within ``seconds``.
        """
        self._running.wait_until(lambda: self.ready, seconds=seconds)

    def check(self) -> None:
        """Do nothing while the process lives.

        Raises:
            ChildDiedError: If it has ended.
        """
        self._running.check()

    def terminate(self) -> None:
        """Ask it to stop (SIGTERM) if it runs, without waiting."""
        if self._child is not None:
            self._child.terminate()

    def wait_for_exit(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for it to end; tell whether it did."""
        return self._running.wait_for_exit(seconds)

    def kill(self) -> None:
        """Kill it without warning (SIGKILL)."""
        self._running.kill()

    def restart(self) -> None:
        """Stop it if it runs, start it with the same settings, and wait until it is ready."""
        self.stop()
        self.launch()
        self.await_ready()

    def stop(self) -> None:
        """Stop it: politely, and by force after its grace."""
        if self._child is not None:
            self._child.stop(grace=self._grace)

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise ChildDiedError(f"{self.name} was never started")
        return self._child
