"""usage-ingest under a sampling profiler, which needs no other package.

From SIGUSR2 to the next SIGUSR2 the kernel interrupts the process at each tick of its own processor
time. Each sample belongs to the innermost function that is in ``PARTS``; time in C belongs to its
caller in Python. The samples by part are printed as JSON on stdout.
"""

import json
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from types import FrameType, MappingProxyType
from typing import Final

INTERVAL_SECONDS: Final = 0.001
"""The kernel may round it up to its own tick."""

OTHER: Final = "all else"
PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "aiormq.channel.Channel.basic_ack": "acks",
        "aiormq": "reading frames",
        "pamqp": "reading frames",
        "asyncio.streams": "reading frames",
        "nexus_messaging.deliveries": "reading frames",
        "nexus_messaging.received": "deliveries and their properties",
        "nexus_messaging.message": "deliveries and their properties",
        "nexus_messaging.properties": "deliveries and their properties",
        "nexus_contracts": "validation",
        "usage_ingest.entry": "digests and readings",
        "usage_ingest.metering": "digests and readings",
        "usage_ingest.columns": "SQL",
        "usage_ingest.storage": "SQL",
        "nexus_database": "SQL",
        "sqlalchemy": "SQL",
        "asyncpg": "SQL",
        "nexus_messaging.unacked": "acks",
        "nexus_messaging": "outcomes and settlement",
        "usage_ingest.handlers": "the handler",
        "usage_ingest.metrics": "metrics",
        "nexus_service": "metrics",
        "prometheus_client": "metrics",
        "asyncio.selector_events": "sockets",
        "asyncio": "event loop",
        "selectors": "event loop",
    }
)
"""Parts by function, module or package; the longest name counts."""

_samples: Counter[str] = Counter()
_sampling = False


def part_of(frame: FrameType | None) -> str:
    """Return the part that a stack belongs to."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        for name in _names(f"{module}.{frame.f_code.co_qualname}"):
            if name in PARTS:
                return PARTS[name]
        frame = frame.f_back
    return OTHER


def _names(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _sample(_signal: int, frame: FrameType | None) -> None:
    _samples[part_of(frame)] += 1


def _switch(_signal: int, _frame: FrameType | None) -> None:
    global _sampling  # noqa: PLW0603 - a signal handler has no other place for it
    _sampling = not _sampling
    interval = INTERVAL_SECONDS if _sampling else 0.0
    signal.setitimer(signal.ITIMER_PROF, interval, interval)
    if not _sampling:
        print(json.dumps(_samples), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR2, _switch)
    sys.argv = ["usage_ingest", "serve"]
    runpy.run_module("usage_ingest", run_name="__main__")
