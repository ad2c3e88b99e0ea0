"""Where a PostgreSQL server can be: root's runs as another user, who must be able to get there.

PostgreSQL refuses to run as root. The user it runs as instead may not enter a private folder, such
as root's home, where the checkout with the programs and the data is. Then both are outside of it
while the server runs, and only then: at its end the data return, so that whoever deletes the
private folder deletes all there is.
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

# Who a server started by root is.
_USER = "nobody"
_PREFIX = "nexus-postgres-"
# The links by which a server's own folder and the one outside know each other.
_OUTSIDE, _HOME = "outside", "home"
_TRIAL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is while it runs.

    Attributes:
        folder: What its data are in.
        programs: The folder of PostgreSQL's programs.
        user: Who it runs as; ``None`` for whoever runs this.
    """

    folder: Path
    programs: Path
    user: str | None

    @classmethod
    def take(cls, directory: Path) -> Self:
        """Find a place for the server of ``directory`` and bring its data there, if it has any.

        Raises:
            PostgresUnavailableError: If there is none; the text says what was tried.
        """
        bring_back(directory)
        programs = postgres_programs()
        if os.geteuid() != 0:
            return cls(directory, programs, None)
        place = cls(directory, programs, _USER)
        try:
            place._try()
        except ProgramFailedError as error:
            return cls._outside_of(directory, programs, error)
        place.give(place.data)
        return place

    @property
    def data(self) -> Path:
        """The server's data."""
        return self.folder / "data"

    @property
    def unfinished(self) -> Path:
        """Data that are not whole, made or copied just now or when a process was killed."""
        return self.folder / "data.unfinished"

    def give(self, path: Path) -> None:
        """Make ``path``, if it exists, and what is in it the server's own."""
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
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            (directory / _OUTSIDE).symlink_to(folder)
            (folder / _HOME).symlink_to(directory)
            place = cls(folder, _copy_programs(programs, folder / "programs"), _USER)
            folder.chmod(0o711)
            place._try()
            _move_data(directory, folder)
            place.give(place.data)
        except BaseException:
            bring_back(directory)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return place

    def _try(self) -> None:
        """Enter the folder and run a program, as the server will.

        Raises:
            ProgramFailedError: If its user may not.
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


def bring_back(directory: Path) -> None:
    """Move the data of ``directory`` back into it, and delete the folder outside, if there is one.

    The server must have ended. Data that are there already are whole: those outside are what a
    killed process left of its own moving.
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
    """List where a folder outside can be: first where moving data there copies nothing."""
    named = [Path(os.environ["TMPDIR"])] if "TMPDIR" in os.environ else []
    # The first outlives a restart of the machine, and is seldom held in memory.
    parents = [path for path in (*named, Path("/var/tmp"), Path("/tmp")) if path.is_dir()]  # noqa: S108 - a folder of a new name is made there
    device = directory.stat().st_dev
    return sorted(parents, key=lambda path: path.stat().st_dev != device)


def _sweep(parent: Path) -> None:
    """Delete what killed servers left in ``parent``, once their own folders have been deleted."""
    for folder in parent.glob(f"{_PREFIX}*"):
        home = folder / _HOME
        if home.is_symlink() and not _leads(home.readlink() / _OUTSIDE, folder):
            shutil.rmtree(folder, ignore_errors=True)


def _leads(link: Path, target: Path) -> bool:
    return link.is_symlink() and link.readlink() == target


def _copy_programs(programs: Path, into: Path) -> Path:
    """Copy PostgreSQL's programs (30 MB), readable by all; return the new folder of them.

    They find their libraries by the way from their own folder up and down again.
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
    """Move ``data`` from one folder to another, also to another file system; a kill loses none."""
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
