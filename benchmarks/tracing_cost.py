"""What does tracing cost in the hot path, the recording of batches of tool runs?

The variants take turns batch by batch, so that other load on the machine affects them alike.
Printed are each variant's processor time for a batch, in this process alone (the database's is
the same), and its ratio to recording without tracing.
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
from typing_extensions import override

from local_stack.provision import provide_postgres
from local_stack.servers import Database as PostgresServer
from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_messaging.message import Delivery, Message
from nexus_messaging.pipeline import BatchHandler
from nexus_messaging.topology import TOOL_EXECUTED_QUEUE
from nexus_messaging.tracing import batch_span, use_tracer_provider
from nexus_service.periodic import Periodic
from nexus_service.work import WorkRegistry
from support.databases import make_database
from support.deliveries import delivery
from support.events import tool_run
from usage_ingest.handlers import record_usage
from usage_ingest.metering import BillingRules
from usage_ingest.metrics import IngestMetrics
from usage_ingest.storage.ledger import Ledger

SERVICE: Final = "usage_ingest"
RULES: Final = BillingRules("tool_call_executed", None, frozenset({"succeeded"}))
WARM_UP: Final = 5


class Encoding(SpanExporter):
    """Encodes spans as the OTLP exporter does, and sends them nowhere."""

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Encode a batch of spans."""
        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS


@dataclass
class Variant:
    """A variant of recording: whether runs carry a trace context, and the provider of spans."""

    name: str
    traced: bool
    spanned: bool
    provider: TracerProvider | None = None
    seconds: list[float] = field(default_factory=list)

    def batch(self, size: int) -> list[Delivery]:
        """Return new tool runs, each with a trace of its own if the variant is traced."""
        runs = [tool_run() for _ in range(size)]
        if self.traced:
            runs = [run.model_copy(update={"traceparent": _context()}) for run in runs]
        return [delivery(Message.of(run), TOOL_EXECUTED_QUEUE) for run in runs]

    def span(self, batch: Sequence[Delivery]) -> AbstractContextManager[None]:
        """Return the span in which ``batch`` is recorded, or none."""
        return batch_span(TOOL_EXECUTED_QUEUE, batch) if self.spanned else nullcontext()


def variants() -> list[Variant]:
    """Return the variants; the first is the one that the others are compared to."""
    return [
        Variant("no tracing", traced=False, spanned=False),
        Variant("off", traced=False, spanned=True),
        Variant("off, publishers trace", traced=True, spanned=True),
        Variant("on, nothing sampled", traced=True, spanned=True, provider=_provider(ALWAYS_OFF)),
        Variant("on, all sampled", traced=True, spanned=True, provider=_provider(ALWAYS_ON)),
    ]


async def measure(record: BatchHandler, size: int, rounds: int) -> str:
    """Record ``rounds`` batches in each variant, in turns; return their times in one line."""
    compared = variants()
    for turn in range(WARM_UP + rounds):
        for variant in compared:
            batch = variant.batch(size)
            use_tracer_provider(variant.provider)
            began = time.process_time()
            with variant.span(batch):
                await record(batch)
            if turn >= WARM_UP:
                variant.seconds.append(time.process_time() - began)
    medians = {variant.name: statistics.median(variant.seconds) for variant in compared}
    base = medians[compared[0].name]
    times = ", ".join(
        f"{name} {seconds * 1000:.2f} ms ({seconds / base:.3f})"
        for name, seconds in medians.items()
    )
    return (
        f"tracing_cost: batches of {size}, median of {rounds}: {times};"
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
    """Yield the handler on a ledger of its own."""
    password = secrets.token_hex(16)
    database = Database(await make_database(postgres, SERVICE, password), name="benchmark")
    registry = CollectorRegistry()
    metrics = IngestMetrics(registry, meters=RULES.meters)
    works = WorkRegistry(registry, service=SERVICE)
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
    """Start a database server, measure, and print."""
    with tempfile.TemporaryDirectory() as name, provide_postgres(Path(name)) as postgres:
        async with recording(postgres) as record:
            print(await measure(record, size, rounds))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=500, help="tool runs in a batch (500)")
    options.add_argument("--rounds", type=int, default=100, help="batches of each variant (100)")
    asyncio.run(main(**vars(options.parse_args())))
