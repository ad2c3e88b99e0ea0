"""Where RabbitMQ's programs come from: the installed ones, else Debian's packages unpacked here."""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from local_stack.errors import LocalStackError
from local_stack.programs import ProgramFailedError, run_program

# A user's PATH on Debian lacks the folder of the servers.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_APT_SECONDS = 300.0
_DPKG_STATUS = Path("/var/lib/dpkg/status")
_WHAT_TO_INSTALL = (
    "RabbitMQ is not installed and cannot be fetched here. Install it "
    "(Debian: apt-get install -y --no-install-recommends rabbitmq-server) or start Docker."
)


class BrokerUnavailableError(LocalStackError):
    """RabbitMQ cannot be run here; the text says what to install."""


@dataclass(frozen=True, slots=True)
class BrokerPrograms:
    """RabbitMQ's scripts and the Erlang they run on.

    Attributes:
        scripts: The folder of ``rabbitmq-server`` and ``rabbitmqctl`` themselves, not of the
            distribution's wrappers, which insist on the system's user and configuration.
        erlang: The folder of ``erl`` and ``epmd``.
        libraries: Folders of shared libraries unpacked beside them.
    """

    scripts: Path
    erlang: Path
    libraries: tuple[Path, ...] = ()

    def environment(self) -> dict[str, str]:
        """Build the variables without which the programs do not run."""
        path = os.pathsep.join([str(self.erlang), os.environ.get("PATH", os.defpath)])
        found = {"PATH": path, "LANG": "C.UTF-8"}
        if self.libraries:
            found["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, self.libraries))
        return found


def broker_programs(unpack_into: Path) -> BrokerPrograms:
    """Find RabbitMQ: installed, unpacked before, or fetched now from Debian's packages.

    Args:
        unpack_into: Where packages are unpacked, about 100 MB, kept for the next time.

    Raises:
        BrokerUnavailableError: If none of the three works here.
    """
    found = installed_programs() or _unpacked_programs(unpack_into)
    return found or fetch_programs(unpack_into)


def installed_programs() -> BrokerPrograms | None:
    """Find the RabbitMQ of this machine; only its programs are used, never its data."""
    server = shutil.which("rabbitmq-server", path=_SEARCH_PATH)
    erl = shutil.which("erl", path=_SEARCH_PATH)
    if server is None or erl is None:
        return None
    scripts = Path(server).resolve().parent
    return _programs(scripts, Path(erl).resolve().parent)


def fetch_programs(directory: Path, *, installed: Path = _DPKG_STATUS) -> BrokerPrograms:
    """Download and unpack the machine's own distribution's RabbitMQ, without root.

    apt works on a private state here: the machine's package lists, cache and database are not
    touched, nothing is configured and no service is started.

    Args:
        directory: Where to unpack; replaced as a whole once everything is there.
        installed: dpkg's list of what the machine has; what it lacks is fetched.

    Raises:
        BrokerUnavailableError: If this is no Debian, or its packages cannot be fetched.
    """
    if not all(map(shutil.which, ("apt-get", "apt-cache", "dpkg-deb"))):
        raise BrokerUnavailableError(_WHAT_TO_INSTALL)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as work:
        apt = _PrivateApt(Path(work) / "apt", installed)
        root = Path(work) / "root"
        for package in apt.download("rabbitmq-server"):
            _run(["dpkg-deb", "-x", package, root], cwd=apt.directory)
        _point_erlang_at(root, directory)
        shutil.rmtree(directory, ignore_errors=True)
        root.rename(directory)
    found = _unpacked_programs(directory)
    if found is None:
        raise BrokerUnavailableError(_WHAT_TO_INSTALL)
    return found


def _programs(
    scripts: Path, erlang: Path, libraries: tuple[Path, ...] = ()
) -> BrokerPrograms | None:
    needed = (scripts / "rabbitmq-server", scripts / "rabbitmq-env", erlang / "epmd")
    return BrokerPrograms(scripts, erlang, libraries) if all(p.exists() for p in needed) else None


def _unpacked_programs(directory: Path) -> BrokerPrograms | None:
    scripts = sorted(directory.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"))
    if not scripts:
        return None
    libraries = tuple(directory.glob("usr/lib/*-linux-gnu*")) + tuple(
        directory.glob("lib/*-linux-gnu*")
    )
    return _programs(scripts[-1], directory / "usr/lib/erlang/bin", libraries)


def _point_erlang_at(root: Path, final: Path) -> None:
    """Rewrite the one absolute path in Erlang's start scripts."""
    home = final.absolute() / "usr/lib/erlang"
    scripts = ("bin/erl", "bin/start", "erts-*/bin/erl", "erts-*/bin/start")
    for pattern in scripts:
        for script in (root / "usr/lib/erlang").glob(pattern):
            if not script.is_symlink():
                text = script.read_text(encoding="utf-8")
                moved = re.sub(r'ROOTDIR="?/usr/lib/erlang"?', f'ROOTDIR="{home}"', text)
                script.write_text(moved, encoding="utf-8")


class _PrivateApt:
    """apt-get with lists, cache and locks of its own, and the machine's sources."""

    def __init__(self, directory: Path, installed: Path) -> None:
        self.directory = directory
        for folder in ("lists/partial", "cache/archives/partial"):
            (directory / folder).mkdir(parents=True)
        settings = (
            f"Dir::State::Lists={directory / 'lists'}",
            f"Dir::State::status={installed}",
            f"Dir::Cache={directory / 'cache'}",
            "Debug::NoLocking=1",
            # The lists belong to whoever runs this: apt cannot hand them to its own user.
            "APT::Sandbox::User=",
            "APT::Install-Recommends=0",
        )
        self._options = [part for setting in settings for part in ("-o", setting)]

    def download(self, package: str) -> list[Path]:
        """Fetch ``package`` and what it needs that this machine lacks; return the files."""
        _run(["apt-get", *self._options, "-qq", "update"], cwd=self.directory)
        plan = _run(["apt-get", *self._options, "-s", "install", package], cwd=self.directory)
        names = re.findall(r"^Inst (\S+)", plan, flags=re.MULTILINE)
        wanted = [name for name in names if name.startswith(("rabbitmq-server", "erlang-", "lib"))]
        _run(["apt-get", *self._options, "-qq", "download", *wanted], cwd=self.directory)
        return sorted(self.directory.glob("*.deb"))


def _run(command: Sequence[str | Path], *, cwd: Path) -> str:
    try:
        environment = {**os.environ, "LC_ALL": "C"}
        return run_program(command, cwd=cwd, env=environment, seconds=_APT_SECONDS)
    except ProgramFailedError as error:
        raise BrokerUnavailableError(f"{_WHAT_TO_INSTALL}\n{error}") from error
