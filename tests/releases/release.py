"""The previous release, built from the history into an environment of its own."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from local_stack.catalogue import SERVICES

Command = Sequence[str | Path]

ROOT: Final = Path(__file__).parents[2]
NAMED_IN: Final = ROOT / ".previous-release"
COMMAND_SECONDS: Final = 600.0
"""Seconds for any command; an installation waits for a registry."""

DELIVERED: Final = (
    "libs/contracts",
    "libs/messaging",
    "libs/database",
    *(f"services/{plan.name}" for plan in SERVICES),
)

_MISSING: Final = (
    "the history has no commit {}, which .previous-release names: "
    "this needs a clone with its history (git fetch --unshallow)"
)


class ReleaseError(Exception):
    """The previous release can't be built here; the text says why and what helps."""


def named_commit() -> str:
    """Return the commit that `.previous-release` names."""
    lines = NAMED_IN.read_text(encoding="utf-8").splitlines()
    [commit] = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return commit


def committed(commit: str, path: str | None = None) -> str:
    """Return a file as ``commit`` has it, or the paths of all its files, a line each.

    Raises:
        ReleaseError: the history has no such commit.
    """
    asked = (
        ["ls-tree", "-r", "--name-only", commit] if path is None else ["show", f"{commit}:{path}"]
    )
    return _output(["git", "-C", ROOT, *asked], _MISSING.format(commit)).decode()


@dataclass(frozen=True, slots=True)
class Release:
    """A release's own code with its own dependencies, in ``directory``."""

    directory: Path

    @property
    def python(self) -> Path:
        """The interpreter with this release and nothing of the code under test."""
        return self.directory / ".venv" / "bin" / "python"

    @classmethod
    def build(cls, commit: str, directory: Path) -> "Release":
        """Build ``commit`` as its images are built: from its own hashes, wheels only.

        Raises:
            ReleaseError: the history has no such commit, or the registry does not answer.
        """
        release = cls(directory)
        archive = _output(
            ["git", "-C", ROOT, "archive", commit],
            _MISSING.format(commit),
        )
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(directory, filter="data")
        _output([sys.executable, "-m", "venv", directory / ".venv"], "no environment can be made")
        locks = [f"--requirement=requirements/{name}.txt" for name in ("runtime", "build")]
        release._install("--require-hashes", "--only-binary=:all:", *locks)
        release._install("--no-deps", "--no-build-isolation", *(f"./{each}" for each in DELIVERED))
        return release

    def run(self, *arguments: str, settings: dict[str, str]) -> str:
        """Run a module of the release as a command and return its output.

        Raises:
            ReleaseError: it failed.
        """
        command: Command = [self.python, "-m", *arguments]
        failed = f"the previous release's command failed: {' '.join(arguments)}"
        return _output(command, failed, env=environment() | settings).decode()

    def _install(self, *arguments: str) -> None:
        pip: Command = [
            self.python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        failed = "the previous release's dependencies can't be installed: is the registry there?"
        _output([*pip, *arguments], failed, cwd=self.directory)


def environment() -> dict[str, str]:
    """Return the environment of the release's commands: no path to the code under test."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _output(
    command: Command,
    failed: str,
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> bytes:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env or environment(),
            capture_output=True,
            check=True,
            timeout=COMMAND_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        errors = getattr(error, "stderr", b"") or b""
        raise ReleaseError(f"{failed}\n{errors.decode(errors='replace')[-2000:]}") from error
    return done.stdout
