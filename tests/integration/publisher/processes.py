"""Host processes: started, read line by line, killed."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from local_stack.catalogue import base_environment

HOST: Final = Path(__file__).with_name("host.py")
END_SECONDS: Final = 60.0


class HostProcess:
    """A host service in a process of its own; ``promised``: its calls' outcomes by id."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.promised: dict[str, str] = {}
        self.said: list[str] = []
        self.errors = ""

    async def read_until(self, word: str) -> None:
        """Read the output until a line begins with ``word``."""
        async with asyncio.timeout(END_SECONDS):
            while not (await self._line()).startswith(word):
                pass

    async def end(self) -> int:
        """Read the output to its end; return how the process ended, negative for a signal."""
        assert self.process.stderr is not None
        async with asyncio.timeout(END_SECONDS):
            while await self._line():
                pass
            self.errors = (await self.process.stderr.read()).decode()
            return await self.process.wait()

    async def _line(self) -> str:
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode().strip()
        outcome, _, event_id = line.partition(" ")
        if outcome in {"stored", "in_memory", "dropped"}:
            self.promised[event_id] = outcome
        elif line:
            self.said.append(line)
        return line

    def stored(self) -> set[str]:
        """Return the ids whose call returned ``Stored``."""
        return {event_id for event_id, outcome in self.promised.items() if outcome == "stored"}


@asynccontextmanager
async def host_process(part: str, **options: Any) -> AsyncIterator[HostProcess]:
    """Start ``part`` of the host program; kill it at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HOST), part, json.dumps(options)),
        env={**base_environment(), "PYTHONWARNINGS": "ignore:This process:DeprecationWarning"},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield HostProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run_host(part: str, *, errors: str = "", **options: Any) -> HostProcess:
    """Run ``part`` of the host program to its end, which must be a good one; it logs ``errors``."""
    async with host_process(part, **options) as host:
        code = await host.end()
    assert (code, host.errors) == (0, errors), host.errors
    return host
