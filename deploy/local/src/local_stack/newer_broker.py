"""RabbitMQ 4 beside an older one: Debian 13's packages, with their own C library."""

import os
from pathlib import Path

from local_stack.broker_programs import (
    KEPT,
    BrokerPrograms,
    BrokerUnavailableError,
    installed_programs,
    unpacked_programs,
    unpacking_broker,
)
from local_stack.debian_packages import PackagesUnavailableError, PrivateApt, exclusive
from local_stack.programs import ProgramFailedError, run_program

MAJOR = 4

_SUITE = "trixie"
_PATCH_SECONDS = 60.0
_WHAT_TO_INSTALL = f"RabbitMQ {MAJOR} is not installed and Debian 13's cannot be fetched here"


def newer_programs(unpack_into: Path) -> BrokerPrograms:
    """Find RabbitMQ 4: installed, unpacked before, or fetched now from Debian 13's packages.

    Args:
        unpack_into: Where packages are unpacked, about 130 MB, kept for the next time.

    Raises:
        BrokerUnavailableError: If none of the three works here.
    """
    installed = installed_programs()
    if installed is not None and installed.major == MAJOR:
        return installed
    with exclusive(unpack_into):
        found = unpacked_programs(unpack_into) or _fetch(unpack_into)
    # Their own loader knows the folders. LD_LIBRARY_PATH would also make the programs that they
    # start, such as the machine's shell, load this C library.
    return BrokerPrograms(found.scripts, found.erlang)


def _fetch(directory: Path) -> BrokerPrograms:
    with unpacking_broker(directory) as (work, root):
        # As if nothing were installed, so that the C library is unpacked too.
        nothing = Path(os.devnull)
        apt = PrivateApt(work / "apt", nothing, _SUITE)
        apt.unpack(root, "rabbitmq-server", "patchelf", kept=KEPT)
        _bind_to_own_libraries(root, directory)
    found = unpacked_programs(directory)
    if found is None:
        raise BrokerUnavailableError(_WHAT_TO_INSTALL)
    return found


def _bind_to_own_libraries(root: Path, final: Path) -> None:
    """Make Erlang's programs use the loader and the C library unpacked with them.

    An older system's C library lacks symbols they need. The older form of the path (``--force-``)
    holds for the libraries of loaded libraries too, such as Erlang's for cryptography.
    """
    loaders = sorted(root.glob("usr/lib/*-linux-gnu*/ld-linux*.so.*"))
    if not loaders:
        raise PackagesUnavailableError("the packages have no loader for this kind of processor")
    loader, libraries = loaders[0], loaders[0].parent
    home = final.absolute() / libraries.relative_to(root)
    patchelf: list[str | Path] = [
        *(loader, "--library-path", libraries, root / "usr/bin/patchelf"),
        *("--set-interpreter", home / loader.name, "--force-rpath", "--set-rpath", home),
    ]
    for program in _programs_below(root / "usr/lib/erlang"):
        try:
            run_program([*patchelf, program], env={}, seconds=_PATCH_SECONDS)
        except ProgramFailedError as error:
            raise PackagesUnavailableError(str(error)) from error


def _programs_below(folder: Path) -> list[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if path.suffix != ".so" and _is_program(path)]


def _is_program(path: Path) -> bool:
    with path.open("rb") as file:
        return os.access(path, os.X_OK) and file.read(4) == b"\x7fELF"
