"""Spans of a test, kept in memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanContext

from nexus_messaging.tracing import use_tracer_provider
from support.waiting import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PUBLISHER = f"00-{TRACE}-00f067aa0ba902b7-01"
"""The trace context in an outside publisher's events."""


class Spans:
    """The finished spans, found by their names."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        """Return the spans in the order in which they ended."""
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name."""
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        (span,) = self.named(name)
        return span

    async def until(self, name: str, least: int = 1) -> list[ReadableSpan]:
        """Wait for so many spans of a name."""

        async def found() -> list[ReadableSpan]:
            return self.named(name)

        return await eventually(found, lambda spans: len(spans) >= least, within=40)


@contextmanager
def recorded_spans(sampler: Sampler | None = None) -> Iterator[Spans]:
    """Keep spans while the context lasts; by default those of sampled traces."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=sampler or ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use_tracer_provider(provider)
    try:
        yield Spans(exporter)
    finally:
        use_tracer_provider(None)
        provider.shutdown()


def written(context: SpanContext | None) -> str:
    """Return a span's context as an event carries it."""
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent(span: ReadableSpan) -> str | None:
    """Return the context of a span's parent."""
    return None if span.parent is None else written(span.parent)


def links(span: ReadableSpan) -> list[str]:
    """Return the contexts that a span is linked to."""
    return [written(link.context) for link in span.links]


def attributes(span: ReadableSpan) -> Mapping[str, object]:
    """Return a span's attributes."""
    return span.attributes or {}
