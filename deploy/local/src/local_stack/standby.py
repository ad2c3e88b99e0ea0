"""A standby of a PostgreSQL server: it follows a primary and can be promoted."""

import time
from pathlib import Path
from typing import Self

from typing_extensions import override

from local_stack.ports import LOOPBACK
from local_stack.postgres import SUPERUSER, PostgresServer
from local_stack.sql import PostgresUnavailableError, run_sql
from local_stack.urls import login_of

# The standby's name at the primary, and that of its replication slot.
_NAME = "standby"
_FOLLOWING_SECONDS = 60.0
_POLL_SECONDS = 0.05

_FOLLOWING = """
SELECT count(*) FROM pg_stat_replication
 WHERE application_name = '{name}' AND state = 'streaming' AND sync_state = '{sync_state}'
"""


class Standby(PostgresServer):
    """A server that replays the changes of its primary, and is read-only until it is promoted.

    While a synchronous standby is down, every COMMIT of the primary waits until the standby is
    restarted or the client cancels.
    """

    def __init__(self, primary: PostgresServer, directory: Path, *, durable: bool) -> None:
        super().__init__(directory, durable=durable)
        self._primary = primary

    @classmethod
    def follow(
        cls,
        primary: PostgresServer,
        directory: Path,
        *,
        synchronous: bool = False,
        durable: bool = True,
    ) -> Self:
        """Start a standby of ``primary``; it receives every change once this returns.

        Args:
            primary: What it copies.
            directory: What it keeps. Nothing else's.
            synchronous: Whether the primary's COMMIT waits until the standby has it on disk.
            durable: As of :meth:`PostgresServer.start`.

        Raises:
            DirectoryInUseError: If a server runs there already.
            PostgresUnavailableError: If the primary can't be copied, or does not send to it.
            ChildDiedError: If it ended instead of starting.
            ChildNotReadyError: If it was not ready in time.
        """
        standby = cls(primary, directory, durable=durable)
        standby._open(None)
        try:
            if synchronous:
                run_sql(
                    primary.superuser_url,
                    f"ALTER SYSTEM SET synchronous_standby_names = '{_NAME}';"
                    "SELECT pg_reload_conf();",
                )
            standby._await_changes("sync" if synchronous else "async")
        except BaseException:
            standby.stop()
            raise
        return standby

    def promote(self) -> None:
        """Make it a primary, which can write. The one it followed must have ended.

        Raises:
            SqlFailedError: If it is no standby any more, or does not answer.
        """
        run_sql(self.superuser_url, "SELECT pg_promote(wait => true)")

    @override
    def _new_password(self) -> str:
        return login_of(self._primary.superuser_url).password

    @override
    def _fill(self, folder: Path, password: str) -> None:
        primary = f"host={LOOPBACK} port={self._primary.port} user={SUPERUSER}"
        self._run(
            [
                *("pg_basebackup", f"--pgdata={folder}", "--checkpoint=fast"),
                *("--wal-method=stream", "--create-slot", f"--slot={_NAME}"),
                *("--write-recovery-conf", f"--dbname={primary} application_name={_NAME}"),
            ],
            PGPASSWORD=password,
        )

    def _await_changes(self, sync_state: str) -> None:
        """Wait until the primary sends its changes, in ``sync_state``."""
        query = _FOLLOWING.format(name=_NAME, sync_state=sync_state)
        deadline = time.monotonic() + _FOLLOWING_SECONDS
        while run_sql(self._primary.superuser_url, query).strip() != "1":
            self.check()
            if time.monotonic() > deadline:
                raise PostgresUnavailableError(
                    f"the primary does not send to the standby after {_FOLLOWING_SECONDS:.0f} s"
                )
            time.sleep(_POLL_SECONDS)
