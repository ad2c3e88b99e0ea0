"""Child processes: started in their own session, watched while waited for, stopped with theirs."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

from local_stack.errors import LocalStackError
from local_stack.identities import descendants, end_descendants
from local_stack.programs import switch_to

_POLL_SECONDS = 0.05
_LOG_END_LINES = 30


class ChildNotStartedError(LocalStackError):
    """A child process could not be started; the text says why."""


class ChildDiedError(LocalStackError):
    """A child process ended while it was needed; the text has the end of its log."""


class ChildNotReadyError(LocalStackError):
    """A child process lives but did not become ready in time; the text has the end of its log."""


class Child:
    """One child process in its own session, writing to its own log file."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], log: Path, stop_signal: signal.Signals
    ) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._stop_signal = stop_signal

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str],
        stop_signal: signal.Signals = signal.SIGTERM,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> Self:
        """Start ``command`` with exactly the environment ``env``, appending to ``log``.

        A session of its own keeps a Ctrl-C at the terminal from it: the holder of this object
        stops it in order.

        Args:
            name: What it is called in messages.
            command: The program and its arguments; never a secret, a process list shows them.
            log: The file its output is appended to.
            env: Its whole environment.
            stop_signal: What asks it to stop.
            cwd: Where it runs.
            user: The user it runs as, the current one by default; only root can name another.

        Raises:
            ChildNotStartedError: If the program can't be started, or its log not be written.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(  # noqa: S603 - a list, without a shell, of this package
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(env),
                    cwd=cwd,
                    start_new_session=True,
                    **switch_to(user),
                )
        except (OSError, LookupError) as error:
            raise ChildNotStartedError(f"{name} could not be started: {error}") from error
        return cls(name, process, log, stop_signal)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; ``None`` while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Do nothing while the process lives.

        Raises:
            ChildDiedError: If it has ended.
        """
        if not self.alive:
            raise ChildDiedError(
                f"{self.name} ended with code {self.exit_code}; the end of {self.log}:\n"
                + self._log_end()
            )

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait until ``ready()`` holds while the process lives.

        Raises:
            ChildDiedError: If the process ends first.
            ChildNotReadyError: If it did not become ready within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ChildNotReadyError(
                    f"{self.name} is not ready after {seconds:.0f} s; the end of {self.log}:\n"
                    + self._log_end()
                )
            time.sleep(_POLL_SECONDS)

    def wait_for_exit(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the process to end; return whether it did."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def terminate(self) -> None:
        """Ask the process to stop, without waiting."""
        self._process.send_signal(self._stop_signal)

    def stop(self, *, grace: float) -> None:
        """Ask the process to stop, kill it after ``grace`` seconds, and end its descendants."""
        started = descendants(self.pid) if self.alive else []
        self.terminate()
        if not self.wait_for_exit(grace):
            self._process.kill()
            self._process.wait()
        end_descendants(started)

    def kill(self) -> None:
        """Kill the process (SIGKILL) and wait for it and its descendants to end."""
        started = descendants(self.pid) if self.alive else []
        self._process.kill()
        self._process.wait()
        end_descendants(started)

    def _log_end(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_END_LINES:]) or "(it is empty)"


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn the first SIGTERM into ``SystemExit``, so that ``with`` blocks stop their children.

    Further ones are ignored: they would interrupt the stopping itself.
    """

    def leave(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
