"""Commands in a process of their own: in a pipe, as a script runs them, or on a terminal."""

import asyncio
import os
import pty
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from local_stack.catalogue import base_environment

WIDTH = 120
STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass(frozen=True)
class Shown:
    """A command's exit code and output; ``text`` is without colours and cursor moves."""

    code: int
    raw: str
    errors: str = ""

    @property
    def text(self) -> str:
        """Return the words alone."""
        return STYLE.sub("", self.raw).replace("\r\n", "\n").replace("\r", "\n")

    @property
    def output(self) -> str:
        """Return standard output and standard error, one after the other."""
        return self.raw + self.errors

    @property
    def coloured(self) -> bool:
        """Return whether there was any colour or cursor move."""
        return STYLE.search(self.raw) is not None


async def on_a_terminal(module: str, *arguments: str, **settings: str) -> Shown:
    """Run ``python -m module`` with all its output on a terminal."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env=_environment(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = await asyncio.to_thread(_read_all, ours)
    return Shown(await process.wait(), shown)


async def in_a_pipe(module: str, *arguments: str, given: str = "", **settings: str) -> Shown:
    """Run ``python -m module`` with ``given`` as its input and its output read by a program."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env=_environment(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(given.encode())
    assert process.returncode is not None
    return Shown(process.returncode, output.decode(), errors.decode())


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {**base_environment(), "COLUMNS": str(WIDTH), "TERM": "xterm-256color", **settings}


def _read_all(terminal: int) -> str:
    parts = []
    try:
        while part := os.read(terminal, 65536):
            parts.append(part)
    except OSError:  # how Linux reports that the other end is closed
        pass
    finally:
        os.close(terminal)
    return b"".join(parts).decode()
