"""RabbitMQ's programs: the installed ones, else Debian's packages, unpacked here."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.debian_packages import PackagesUnavailableError, PrivateApt, exclusive, unpacking
from local_stack.errors import LocalStackError

# A user's PATH on Debian lacks the folder of the servers.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_DPKG_STATUS = Path("/var/lib/dpkg/status")
# The packages that are run or loaded; the others set a system up.
KEPT = ("rabbitmq-server", "erlang-", "lib", "zlib", "patchelf")
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

    @property
    def major(self) -> int | None:
        """RabbitMQ's major version, by the name of its folder; ``None`` where that is unusual."""
        folder = (self.scripts / "rabbitmq-server").resolve().parent.parent.name
        named = re.fullmatch(r"rabbitmq_server-(\d+)\..*", folder)
        return None if named is None else int(named[1])

    def environment(self) -> dict[str, str]:
        """Build the environment variables that the programs need."""
        path = os.pathsep.join([str(self.erlang), os.environ.get("PATH", os.defpath)])
        # Relative to the scripts' folder, so that a space in its path does no harm.
        found = {"PATH": path, "LANG": "C.UTF-8", "RABBITMQ_SCRIPTS_DIR": "."}
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
    installed = installed_programs()
    if installed is not None:
        return installed
    # An unpacked folder is complete; reading it needs no lock.
    if (unpacked := unpacked_programs(unpack_into)) is not None:
        return unpacked
    with exclusive(unpack_into):
        return unpacked_programs(unpack_into) or fetch_programs(unpack_into)


def installed_programs() -> BrokerPrograms | None:
    """Find the RabbitMQ of this machine; its data are never used."""
    server = shutil.which("rabbitmq-server", path=_SEARCH_PATH)
    erl = shutil.which("erl", path=_SEARCH_PATH)
    if server is None or erl is None:
        return None
    scripts = Path(server).resolve().parent
    return _programs(scripts, Path(erl).resolve().parent)


def fetch_programs(directory: Path, *, installed: Path = _DPKG_STATUS) -> BrokerPrograms:
    """Download and unpack the RabbitMQ of the machine's own distribution, without root.

    Args:
        directory: Where to unpack; replaced as a whole once everything is there.
        installed: dpkg's list of installed packages; the others are fetched.

    Raises:
        BrokerUnavailableError: If this is no Debian, or its packages cannot be fetched.
    """
    with unpacking_broker(directory) as (work, root):
        PrivateApt(work / "apt", installed).unpack(root, "rabbitmq-server", kept=KEPT)
    found = unpacked_programs(directory)
    if found is None:
        raise BrokerUnavailableError(_WHAT_TO_INSTALL)
    return found


@contextmanager
def unpacking_broker(directory: Path) -> Iterator[tuple[Path, Path]]:
    """Give a folder to work in and a root to unpack into, as :func:`unpacking` does.

    Raises:
        BrokerUnavailableError: In place of an error in fetching packages.
    """
    try:
        with unpacking(directory) as (work, root):
            yield work, root
            _point_erlang_at(root, directory)
    except PackagesUnavailableError as error:
        raise BrokerUnavailableError(f"{_WHAT_TO_INSTALL}\n{error}") from error


def unpacked_programs(directory: Path) -> BrokerPrograms | None:
    """Find the RabbitMQ that was unpacked in ``directory`` before."""
    directory = directory.absolute()
    scripts = sorted(directory.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin"))
    if not scripts:
        return None
    libraries = tuple(directory.glob("usr/lib/*-linux-gnu*")) + tuple(
        directory.glob("lib/*-linux-gnu*")
    )
    return _programs(scripts[-1], directory / "usr/lib/erlang/bin", libraries)


def _programs(
    scripts: Path, erlang: Path, libraries: tuple[Path, ...] = ()
) -> BrokerPrograms | None:
    # Debian's /usr/lib/rabbitmq/bin holds links. The scripts find RabbitMQ by their own folder.
    scripts = (scripts / "rabbitmq-server").resolve().parent
    needed = (scripts / "rabbitmq-server", scripts / "rabbitmq-env", erlang / "epmd")
    return BrokerPrograms(scripts, erlang, libraries) if all(p.exists() for p in needed) else None


def _point_erlang_at(root: Path, final: Path) -> None:
    """Rewrite the one absolute path in Erlang's start scripts."""
    ours = "ROOTDIR=" + shlex.quote(str(final.absolute() / "usr/lib/erlang"))
    scripts = ("bin/erl", "bin/start", "erts-*/bin/erl", "erts-*/bin/start")
    for pattern in scripts:
        for script in (root / "usr/lib/erlang").glob(pattern):
            if not script.is_symlink():
                text = script.read_text(encoding="utf-8")
                moved = re.sub(r'ROOTDIR="?/usr/lib/erlang"?', lambda _match: ours, text)
                script.write_text(moved, encoding="utf-8")
