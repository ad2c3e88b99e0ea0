"""The processor time of processes, as the kernel counts it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from local_stack.identities import descendants

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def processor_seconds(*roots: int) -> float:
    """Return the seconds of processes and their descendants, including those that have ended."""
    total = 0
    for root in roots:
        total += sum(_ticks(root, ended=True))
        for each in descendants(root):
            # One that ends just now is counted by its parent.
            with suppress(FileNotFoundError, ProcessLookupError):
                total += sum(_ticks(each.pid, ended=False))
    return total / _TICKS


def _ticks(pid: int, *, ended: bool) -> list[int]:
    """Read a process's user and system time, and that of its ended children: proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return [int(each) for each in fields[11 : 15 if ended else 13]]
