"""The ways of recording tool runs that are compared: what runs, and what queues its backlog."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from types import MappingProxyType
from typing import Final

from nexus_messaging.topology import TOOL_EXECUTED_QUEUE

HERE: Final = Path(__file__).parent
PEERS: Final = HERE / "peers"
ENVIRONMENT: Final = HERE / ".venv"
"""Where the packages are that only peers need; `make bench` installs them."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of recording.

    Attributes:
        title: Its name for readers.
        events: Its backlog in a full run: a few seconds of its work.
        command: What runs it.
        processes: How many of these run.
        producer: The command that queues its own messages, to which their number is appended;
            ``None`` where it consumes usage-ingest's queue.
        queue: The queue that it consumes.
    """

    title: str
    events: int
    command: Sequence[str | Path]
    processes: int = 1
    producer: Sequence[str | Path] | None = None
    queue: str = TOOL_EXECUTED_QUEUE

    @property
    def ours(self) -> bool:
        """Whether it is usage-ingest."""
        return self.command is _OURS

    @property
    def installed(self) -> bool:
        """Whether its packages are there."""
        return Path(self.command[0]).exists()


_OURS: Final = (sys.executable, "-m", "usage_ingest", "serve")
_PYTHON: Final = ENVIRONMENT / "bin" / "python"


def _asyncio(name: str) -> Sequence[str | Path]:
    return (sys.executable, PEERS / "asyncio_consumers.py", name)


_CELERY: Final = Way(
    "Celery, an insert per task",
    3_000,
    (
        *(_PYTHON, "-m", "celery", "--quiet", "--app", "peers.celery_tasks", "worker"),
        *("--loglevel", "ERROR", "--pool", "threads", "--concurrency", "8"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
    processes=2,
    producer=(_PYTHON, PEERS / "celery_tasks.py"),
    queue="celery",
)
_DRAMATIQ: Final = Way(
    "Dramatiq, an insert per task",
    4_000,
    (
        *(_PYTHON, "-m", "dramatiq", "peers.dramatiq_tasks"),
        *("--processes", "2", "--threads", "8"),
    ),
    producer=(_PYTHON, PEERS / "dramatiq_tasks.py"),
    queue="dramatiq",
)

ONE, TWO = "usage-ingest", "usage-ingest-2"
NAIVE, CELERY, DRAMATIQ, LIMIT = "one-by-one", "celery", "dramatiq", "limit"

WAYS: Final[Mapping[str, Way]] = MappingProxyType(
    {
        CELERY: _CELERY,
        NAIVE: Way("FastStream, a transaction per message", 5_000, _asyncio("one-by-one")),
        DRAMATIQ: _DRAMATIQ,
        "ack-only": Way("aio-pika, acks alone", 20_000, _asyncio("ack-only")),
        "in-batches": Way("aio-pika, batches, no validation", 20_000, _asyncio("in-batches")),
        ONE: Way("usage-ingest", 30_000, _OURS),
        TWO: Way("usage-ingest, two processes", 40_000, _OURS, processes=2),
        "unread": Way("aiormq and asyncpg, bodies unread", 40_000, _asyncio("unread")),
        LIMIT: Way(
            "AMQP by hand, no validation",
            60_000,
            (sys.executable, PEERS / "raw_reader.py", TOOL_EXECUTED_QUEUE),
        ),
    }
)


def versions() -> dict[str, str]:
    """Return the versions of the peers' own packages."""
    places = [str(each) for each in ENVIRONMENT.glob("lib/python*/site-packages")]
    found = {each.name: each.version for each in distributions(path=places)} if places else {}
    return {name: found[name] for name in (CELERY, DRAMATIQ) if name in found}
