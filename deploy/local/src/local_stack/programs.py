"""Programs that run to their end: their output, or an error with the end of it."""

import pwd
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from local_stack.errors import LocalStackError

_OUTPUT_END_LINES = 30


class ProgramFailedError(LocalStackError):
    """A program failed.

    Attributes:
        why: How it failed, such as ``failed with code 1``.
        output: The end of what it printed.
    """

    def __init__(self, program: str, why: str, output: str) -> None:
        self.why = why
        self.output = output
        printed = f":\n{output}" if output else ", and printed nothing"
        super().__init__(f"{program} {why}{printed}")


def run_program(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    seconds: float,
    cwd: Path | None = None,
    user: str | None = None,
    stdin: str = "",
    name: str | None = None,
) -> str:
    """Run a program to its end with exactly the environment ``env``; return all its output.

    Args:
        command: The program and its arguments; never a secret, a process list shows them.
        env: The whole environment.
        seconds: How long it may take.
        cwd: Where it runs.
        user: The user it runs as, the current one by default; only root can name another.
        stdin: What it reads.
        name: Its name in an error; the program's file name by default.

    Raises:
        ProgramFailedError: If it could not be started, took too long, or ended with an error.
    """
    program = name or Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603 - a list, without a shell, built by this package
            command,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
            cwd=cwd,
            env=dict(env),
            **switch_to(user),
        )
    except subprocess.TimeoutExpired as error:
        # Bytes, whatever the mode: https://github.com/python/cpython/issues/87597
        printed = (error.stdout or b"").decode(errors="replace")
        why = f"took more than {seconds:.0f} s"
        raise ProgramFailedError(program, why, _end(printed)) from error
    except (OSError, LookupError) as error:
        raise ProgramFailedError(program, "could not be started", str(error)) from error
    if done.returncode != 0:
        why = f"failed with code {done.returncode}"
        raise ProgramFailedError(program, why, _end(done.stdout))
    return done.stdout


class Switch(TypedDict, total=False):
    """What makes :mod:`subprocess` run a program as another user, without that user's groups."""

    user: int
    group: int
    extra_groups: list[int]


def switch_to(user: str | None) -> Switch:
    """Look ``user`` up; ``None`` is the current user.

    Raises:
        LookupError: If the system knows no such user.
    """
    if user is None:
        return {}
    found = pwd.getpwnam(user)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _end(printed: str) -> str:
    return "\n".join(printed.splitlines()[-_OUTPUT_END_LINES:])
