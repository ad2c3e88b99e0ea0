"""The memory of a process."""

from pathlib import Path

from local_stack.server_process import ServerProcess

MAX_WHEN_IDLE = 120
"""MiB that a process of ours needs at most while it has no work."""


def resident_mib(process: ServerProcess) -> int:
    """Return the resident memory of a running process."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    [kib] = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kib) // 1024
