"""Programs that run to their end: what they printed, or an error with the end of it."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from local_stack.errors import LocalStackError

_OUTPUT_END_LINES = 30


class ProgramFailedError(LocalStackError):
    """A program failed.

    Attributes:
        output: The end of what it printed.
    """

    def __init__(self, program: str, why: str, output: str) -> None:
        self.output = output
        super().__init__(f"{program} {why}:\n{output}")


def run_program(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    seconds: float,
    cwd: Path | None = None,
    stdin: str = "",
    name: str | None = None,
) -> str:
    """Run a program to its end with exactly the environment ``env``; return all its output.

    Args:
        command: The program and its arguments; never a secret, a process list shows them.
        env: The whole environment.
        seconds: How long it may take.
        cwd: Where it runs.
        stdin: What it reads.
        name: What it is called in an error; the program's file name by default.

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
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramFailedError(program, f"took more than {seconds:.0f} s", "") from error
    except OSError as error:
        raise ProgramFailedError(program, "could not be started", str(error)) from error
    if done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-_OUTPUT_END_LINES:])
        raise ProgramFailedError(program, f"failed with code {done.returncode}", end)
    return done.stdout
