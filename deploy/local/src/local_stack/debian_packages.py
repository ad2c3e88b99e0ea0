"""Debian's packages, fetched and unpacked without root and without touching the machine."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from local_stack.directory_lock import DirectoryClosedError
from local_stack.errors import LocalStackError
from local_stack.programs import ProgramFailedError, run_program

_APT_SECONDS = 300.0
# In a folder of a longer path (SafeGetCWD in its fileutl.cc) apt downloads into "/".
_APT_PATH_BYTES = 300


class PackagesUnavailableError(LocalStackError):
    """Packages can't be fetched here; the text says why."""


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Let one process at a time unpack into ``directory``.

    The next one finds it complete, and does not replace programs that already run.

    Raises:
        DirectoryClosedError: If nothing can be written beside it.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        lock = directory.with_name(f"{directory.name}.lock").open("w", encoding="utf-8")
    except OSError as error:
        raise DirectoryClosedError(directory.parent, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def unpacking(directory: Path) -> Iterator[tuple[Path, Path]]:
    """Give a folder to work in, and a root to unpack into, which becomes ``directory``.

    ``directory`` is replaced as a whole, and only if the block raised nothing.
    """
    directory = directory.absolute()  # apt and its helpers run elsewhere
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (
        # Not beside the directory: apt does not work below a long path.
        tempfile.TemporaryDirectory() as work,
        tempfile.TemporaryDirectory(dir=directory.parent) as beside,
    ):
        root = Path(beside) / "root"
        yield Path(work), root
        shutil.rmtree(directory, ignore_errors=True)
        root.rename(directory)


class PrivateApt:
    """apt with lists, cache and locks of its own.

    The machine's package lists, cache and database are not touched, nothing is configured and no
    service is started.
    """

    def __init__(self, directory: Path, installed: Path, suite: str | None = None) -> None:
        """Prepare apt.

        Args:
            directory: Where it keeps everything, as an absolute path; must not exist.
            installed: dpkg's list of the packages that need not be fetched.
            suite: Another release of the machine's own distribution, such as ``trixie``;
                ``None`` for the machine's own sources as they are.

        Raises:
            PackagesUnavailableError: If the machine has no apt, or no mirror to take ``suite``
                from, or the path of ``directory`` is too long.
        """
        if not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
            raise PackagesUnavailableError("this machine has no apt")
        if len(os.fsencode(directory)) >= _APT_PATH_BYTES:
            raise PackagesUnavailableError(
                f"apt can't work in {directory}, the path is too long: set TMPDIR to another"
            )
        for folder in ("lists/partial", "cache/archives/partial"):
            (directory / folder).mkdir(parents=True)
        settings = [
            f"Dir::State::Lists={directory / 'lists'}",
            f"Dir::State::status={installed}",
            f"Dir::Cache={directory / 'cache'}",
            "Debug::NoLocking=1",
            # The lists belong to the current user: apt cannot give them to its own.
            "APT::Sandbox::User=",
            "APT::Install-Recommends=0",
        ]
        self._directory = directory
        if suite is not None:
            sources = directory / "sources.list"
            sources.write_text(f"deb {self._mirror()} {suite} main\n", encoding="utf-8")
            settings += [f"Dir::Etc::SourceList={sources}", "Dir::Etc::SourceParts=/dev/null"]
        self._options = [part for setting in settings for part in ("-o", setting)]

    def unpack(self, root: Path, *packages: str, kept: tuple[str, ...]) -> None:
        """Unpack ``packages`` and what they need below ``root``, except what is installed.

        Args:
            root: Where to.
            packages: Their names.
            kept: The prefixes of the packages that are run or loaded; the others, which set a
                system up, are not fetched.

        Raises:
            PackagesUnavailableError: If they cannot be fetched.
        """
        self._run(["apt-get", *self._options, "-qq", "update"])
        plan = self._run(["apt-get", *self._options, "-s", "install", *packages])
        names = re.findall(r"^Inst (\S+)", plan, flags=re.MULTILINE)
        wanted = [name for name in names if name.startswith(kept)]
        self._run(["apt-get", *self._options, "-qq", "download", *wanted])
        for package in sorted(self._directory.glob("*.deb")):
            self._run(["dpkg-deb", "-x", package, root])

    def _mirror(self) -> str:
        """Find the mirror of the machine's own release; it has the other suites too."""
        os_release = Path("/etc/os-release").read_text(encoding="utf-8")
        codename = re.search(r'^VERSION_CODENAME="?(\w+)', os_release, flags=re.MULTILINE)
        form = ("--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
        targets = self._run(["apt-get", "indextargets", *form])
        own = codename and re.search(rf"(?m)^{codename[1]} main (\S+)$", targets)
        if not own:
            raise PackagesUnavailableError("no source of this machine's own release is configured")
        return own[1]

    def _run(self, command: Sequence[str | Path]) -> str:
        try:
            environment = {**os.environ, "LC_ALL": "C"}
            return run_program(command, cwd=self._directory, env=environment, seconds=_APT_SECONDS)
        except ProgramFailedError as error:
            raise PackagesUnavailableError(str(error)) from error
