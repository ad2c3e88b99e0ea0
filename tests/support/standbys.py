"""A primary with a synchronous standby, and the standby suspended: connected and silent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.postgres import PostgresServer
from local_stack.sql import run_sql
from local_stack.standby import Standby
from support.freezing import freeze

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary and its standby."""

    primary: PostgresServer
    standby: Standby


@contextmanager
def replicated(directory: Path) -> Iterator[Pair]:
    """Run a primary and its synchronous standby in ``directory``."""
    with (
        PostgresServer.start(directory / "primary", durable=False) as primary,
        Standby.follow(primary, directory / "standby", synchronous=True, durable=False) as standby,
    ):
        yield Pair(primary, standby)


@contextmanager
def frozen(standby: Standby) -> Iterator[None]:
    """Suspend every process of ``standby`` while the context lasts: COMMIT waits at its primary."""
    with freeze(*(pid for parent in standby.pids.values() for pid in (parent, *_children(parent)))):
        yield


def commits_waiting(primary: PostgresServer) -> int:
    """Count the commits at ``primary`` that wait for its standby."""
    return int(run_sql(primary.superuser_url, WAITING))


def _children(parent: int) -> list[int]:
    stats = (entry / "stat" for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(stat.parent.name) for stat in stats if _parent(stat) == parent]


def _parent(stat: Path) -> int | None:
    try:
        # The second field is the program's name in brackets, which may hold spaces.
        return int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except (OSError, ValueError):  # it has ended
        return None
