"""What do traces cost where the most is done: recording batches of tool runs?

Four ways of recording take turns, batch by batch, so that what else the machine does meets them
all alike. Printed is each way's processor time for a batch, in this process alone (the database's
own is the same), and its ratio to recording without a trace of tracing.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from prometheus_client import CollectorRegistry

from local_stack.provision import provide_postgres
from local_stack.servers import Database as PostgresServer
from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_messaging.message import Delivery, Message
from nexus_messaging.pipeline import BatchHandler
from nexus_messaging.topology import EVENTS, TOOL_EXECUTED_QUEUE
from nexus_messaging.tracing import processing_batch, trace_with
from nexus_service.periodic import Periodic
from nexus_service.work import Works
from rig.databases import make_database
from rig.events import tool_run
from usage_ingest.handlers import record_usage
from usage_ingest.metering import BillingRules
from usage_ingest.metrics import IngestMetrics
from usage_ingest.storage.ledger import Ledger

SERVICE: Final = "usage_ingest"
RULES: Final = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
WARM_UP: Final = 5


class Encoding(SpanExporter):
    """Encodes spans as the OTLP exporter does, and sends them nowhere."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Encode a batch of spans."""
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


@dataclass
class Way:
    """A way of recording: whether runs carry a context, and what makes spans, if anything does."""

    name: str
    traced: bool
    spanned: bool
    provider: TracerProvider | None = None
    seconds: list[float] = field(default_factory=list)

    def batch(self, size: int) -> list[Delivery]:
        """Return new tool runs, each of a publisher's trace of its own where they have one."""
        runs = [tool_run() for _ in range(size)]
        if self.traced:
            runs = [run.model_copy(update={"traceparent": _context()}) for run in runs]
        return [Delivery(Message.of(run), TOOL_EXECUTED_QUEUE, EVENTS) for run in runs]

    def span(self, batch: Sequence[Delivery]) -> AbstractContextManager[None]:
        """Return what the recording of ``batch`` happens in."""
        return processing_batch(TOOL_EXECUTED_QUEUE, batch) if self.spanned else nullcontext()


def ways() -> list[Way]:
    """Return the ways that are compared; the first is what they are compared to."""
    return [
        Way("no tracing", traced=False, spanned=False),
        Way("off", traced=False, spanned=True),
        Way("off, publishers trace", traced=True, spanned=True),
        Way("on, nothing sampled", traced=True, spanned=True, provider=_provider(ALWAYS_OFF)),
        Way("on, all sampled", traced=True, spanned=True, provider=_provider(ALWAYS_ON)),
    ]


async def measure(record: BatchHandler, size: int, rounds: int) -> str:
    """Record ``rounds`` batches in each way, in turns, and say what a batch took."""
    compared = ways()
    for turn in range(WARM_UP + rounds):
        for way in compared:
            batch = way.batch(size)
            trace_with(way.provider)
            began = time.process_time()
            with way.span(batch):
                await record(batch)
            if turn >= WARM_UP:
                way.seconds.append(time.process_time() - began)
    base = statistics.median(compared[0].seconds)
    told = ", ".join(
        f"{way.name} {(took := statistics.median(way.seconds)) * 1000:.2f} ms ({took / base:.3f})"
        for way in compared
    )
    return (
        f"tracing_cost: batches of {size}, median of {rounds}: {told};"
        f" load average {os.getloadavg()[0]:.1f}"
    )


def _provider(sampler: Sampler) -> TracerProvider:
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(BatchSpanProcessor(Encoding()))
    return provider


def _context() -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


async def _nothing() -> None:
    """Claim nothing."""


@asynccontextmanager
async def recording(postgres: PostgresServer) -> AsyncIterator[BatchHandler]:
    """Offer the handler on a ledger of its own."""
    password = secrets.token_hex(16)
    database = Database(await make_database(postgres, SERVICE, password), name="benchmark")
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry, meters=RULES.meters)
    works = Works(registry, service=SERVICE)
    provided: dict[str, Any] = {
        "ledger": Ledger(database),
        "rules": RULES,
        "metrics": metrics,
        "recording": works.add("record"),
        "claim": Periodic(_nothing, works.add("claim"), every=1.0),
        "now": utc_now,
    }
    try:
        yield partial(record_usage, **provided)
    finally:
        await database.close()


async def main(size: int, rounds: int) -> None:
    """Start a database of its own, measure, and print."""
    with tempfile.TemporaryDirectory() as name, provide_postgres(Path(name)) as postgres:
        async with recording(postgres) as record:
            print(await measure(record, size, rounds))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=500, help="tool runs in a batch (500)")
    options.add_argument("--rounds", type=int, default=100, help="batches of each way (100)")
    asyncio.run(main(**vars(options.parse_args())))
