"""Where the data and the programs of a PostgreSQL server are while it runs.

PostgreSQL refuses to run as root. The user it runs as instead may have no access to a private
folder such as root's home, in which the checkout is. The data and a copy of the programs are then
outside of it, but only while the server runs: when it ends the data are moved back, so that
deleting the private folder deletes everything.
"""

import errno
import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from local_stack.programs import ProgramFailedError, run_program
from local_stack.sql import PostgresUnavailableError, postgres_programs

# The user that root's servers run as.
_USER = "nobody"
_PREFIX = "nexus-postgres-"
# The links from a server's own folder to the one outside, and back.
_OUTSIDE, _HOME = "outside", "home"
_TRIAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Location:
    """Where a server is while it runs.

    Attributes:
        folder: The folder of its data.
        programs: The folder of PostgreSQL's programs.
        user: The user it runs as; ``None`` for the current one.
    """

    folder: Path
    programs: Path
    user: str | None

    @classmethod
    def find(cls, directory: Path) -> Self:
        """Find a location for the server of ``directory``, and move its data there if it has any.

        Raises:
            PostgresUnavailableError: If there is none; the text says what was tried.
        """
        return_data(directory)
        programs = postgres_programs()
        if os.geteuid() != 0:
            return cls(directory, programs, None)
        location = cls(directory, programs, _USER)
        try:
            location._check_access()
        except ProgramFailedError as error:
            return cls._outside_of(directory, programs, error)
        location.give_to_server(location.data)
        return location

    @property
    def data(self) -> Path:
        """The server's data."""
        return self.folder / "data"

    @property
    def unfinished(self) -> Path:
        """Data that are being made or copied, or were when a process was killed."""
        return self.folder / "data.unfinished"

    def give_to_server(self, path: Path) -> None:
        """Make the server's user the owner of ``path``, if it exists, and of what is in it."""
        if self.user is None or not path.exists():
            return
        owner = pwd.getpwnam(self.user)
        if path.stat().st_uid == owner.pw_uid:
            return
        for each in (path, *path.rglob("*")):
            os.chown(each, owner.pw_uid, owner.pw_gid, follow_symlinks=False)

    @classmethod
    def _outside_of(cls, directory: Path, programs: Path, why: ProgramFailedError) -> Self:
        refusals = [str(why)]
        for parent in _parents(directory):
            try:
                return cls._below(parent, directory, programs)
            except (OSError, ProgramFailedError) as error:
                refusals.append(f"{parent}: {error}")
        raise PostgresUnavailableError(
            f"as root, PostgreSQL runs as {_USER}, who needs a folder to enter and run programs "
            "from; TMPDIR can name one. What was tried:\n" + "\n".join(refusals)
        )

    @classmethod
    def _below(cls, parent: Path, directory: Path, programs: Path) -> Self:
        _delete_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            (directory / _OUTSIDE).symlink_to(folder)
            (folder / _HOME).symlink_to(directory)
            location = cls(folder, _copy_programs(programs, folder / "programs"), _USER)
            folder.chmod(0o711)
            location._check_access()
            _move_data(directory, folder)
            location.give_to_server(location.data)
        except BaseException:
            return_data(directory)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return location

    def _check_access(self) -> None:
        """Enter the folder and run a program, as the server will.

        Raises:
            ProgramFailedError: If the server's user has no access.
        """
        script = 'cd "$0" && exec "$1" --version'
        run_program(
            ["sh", "-c", script, self.folder, self.programs / "postgres"],
            env={"PATH": os.defpath},
            seconds=_TRIAL_SECONDS,
            cwd=Path("/"),
            user=self.user,
            name=f"{self.programs / 'postgres'} as {self.user}",
        )


def return_data(directory: Path) -> None:
    """Move the data of ``directory`` back into it, and delete the folder outside, if there is one.

    The server must have ended. If there are data already, they are complete: those outside are what
    a killed process has not yet deleted after moving them.
    """
    link = directory / _OUTSIDE
    if not link.is_symlink():
        return
    folder = link.readlink()
    if _leads(folder / _HOME, directory):
        _move_data(folder, directory)
        shutil.rmtree(folder)
    link.unlink()


def _parents(directory: Path) -> list[Path]:
    """List the possible parents of a folder outside, those on the same file system first."""
    named = [Path(os.environ["TMPDIR"])] if "TMPDIR" in os.environ else []
    # /var/tmp survives a restart of the machine, and is seldom held in memory.
    parents = [path for path in (*named, Path("/var/tmp"), Path("/tmp")) if path.is_dir()]  # noqa: S108 - a folder of a new name is made there
    device = directory.stat().st_dev
    return sorted(parents, key=lambda path: path.stat().st_dev != device)


def _delete_abandoned(parent: Path) -> None:
    """Delete the folders of killed servers in ``parent`` whose own folders have been deleted."""
    for folder in parent.glob(f"{_PREFIX}*"):
        home = folder / _HOME
        if home.is_symlink() and not _leads(home.readlink() / _OUTSIDE, folder):
            shutil.rmtree(folder, ignore_errors=True)


def _leads(link: Path, target: Path) -> bool:
    return link.is_symlink() and link.readlink() == target


def _copy_programs(programs: Path, into: Path) -> Path:
    """Copy PostgreSQL's programs (30 MB), readable by all; return the new folder of them.

    They find their libraries by a path relative to their own folder.
    """
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")
    unneeded = shutil.ignore_patterns("include")
    installed = programs.parent.relative_to(package.parent)
    shutil.copytree(programs.parent, into / installed, ignore=unneeded)
    shutil.copytree(libraries, into / libraries.name)
    for path in (into, *into.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    return into / installed / programs.name


def _move_data(source: Path, target: Path) -> None:
    """Move ``data`` between folders, also of two file systems; a kill loses nothing."""
    data, moved = source / "data", target / "data"
    if moved.exists() or not data.exists():
        return
    try:
        data.rename(moved)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        unfinished = target / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(data, unfinished, symlinks=True)
        unfinished.rename(moved)
        done = source / "data.unfinished"
        data.rename(done)
        shutil.rmtree(done)
