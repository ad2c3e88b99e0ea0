"""Processes of this machine, distinguished from later ones with the same process id."""

import os
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_POLL_SECONDS = 0.05
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process, identified by its id and its start time (clock ticks since boot)."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Identify a running process; ``None`` where there is none, or no ``/proc`` to ask."""
        fields = _stat(pid)
        # proc(5) counts the start time as field 22; two went before the state.
        return None if fields is None else cls(pid, fields[19])

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self

    @property
    def holds_pid(self) -> bool:
        """Whether the process runs, or has ended and its process id is not free yet."""
        return self.alive or Path(f"/proc/{self.pid}").exists()

    def send(self, sent: signal.Signals) -> None:
        """Send a signal to the process, unless it is gone."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sent)


def descendants(pid: int) -> list[ProcessIdentity]:
    """Find every descendant of a process; none where there is no ``/proc``."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields is not None:
            parents[int(entry.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    identities = (ProcessIdentity.of(child) for child in found - {pid})
    return [identity for identity in identities if identity is not None]


def await_exit(processes: Iterable[ProcessIdentity], *, seconds: float) -> bool:
    """Wait up to ``seconds`` until all the processes have ended; return whether they have."""
    deadline = time.monotonic() + seconds
    remaining = list(processes)
    while remaining := [each for each in remaining if each.alive]:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def await_removal(processes: Iterable[ProcessIdentity], *, seconds: float) -> None:
    """Wait up to ``seconds`` until the ids of ended processes are free.

    PostgreSQL takes the id in its lock file for a running server's as long as it is in use.
    """
    deadline = time.monotonic() + seconds
    while any(each.holds_pid for each in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def end_descendants(processes: Sequence[ProcessIdentity]) -> None:
    """Wait until the descendants of an ended process end by themselves, then kill the rest."""
    if not await_exit(processes, seconds=_END_SECONDS):
        for process in processes:
            process.send(signal.SIGKILL)
        await_exit(processes, seconds=_END_SECONDS)


def _stat(pid: int) -> list[str] | None:
    """Read what follows the program's name in ``/proc/<pid>/stat``; ``None`` if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields
