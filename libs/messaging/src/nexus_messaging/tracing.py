"""Spans: how a trace enters with a message, goes on to the next one or to Stripe, or is linked to.

Where one thing follows from one, its span is a child. Where many meet (a batch) or part (a claim),
spans are linked: a trace that grew with the load could be shown by nobody.

Until ``trace_with`` is called there are no spans, and what is here costs next to nothing. No
attribute holds a value of a message: ids, names of ours and numbers only, and no error's own text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    get_current_span,
    set_span_in_context,
    use_span,
)
from yarl import URL

from nexus_contracts.envelope import traceparent_of
from nexus_messaging.message import Delivery

MOST_LINKS: Final = 128
"""Of one span; OpenTelemetry's own limit unless it is told another."""

Attributes = Mapping[str, str | int]
Links = Mapping[str, Attributes]
"""What is linked to, by its traceparent."""

NOTHING: Final[Mapping[str, str | int]] = MappingProxyType({})
NO_LINKS: Final[Links] = MappingProxyType({})
NEW_TRACE: Final = Context()


@dataclass(slots=True)
class _Switch:
    tracer: Tracer | None = None


_switch: Final = _Switch()


def trace_with(provider: TracerProvider | None) -> None:
    """Have spans made by ``provider`` from now on, or none any more."""
    _switch.tracer = None if provider is None else provider.get_tracer("nexus_messaging")


def is_on() -> bool:
    """Whether spans are made."""
    return _switch.tracer is not None


def carried(span: Span | None = None) -> str | None:
    """Return the context of ``span``, or of the current one, as events carry it; None without."""
    context = (get_current_span() if span is None else span).get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def worth_a_link(traceparent: str | None) -> str | None:
    """Return ``traceparent`` if spans are made and somebody recorded the span that it names."""
    if _switch.tracer is None or traceparent is None:
        return None
    return traceparent if int(traceparent[-2:], 16) & TraceFlags.SAMPLED else None


def following(traceparent: str | None) -> Context:
    """Return the context in which a span is the child of the one named, or begins a trace."""
    if traceparent is None:
        return NEW_TRACE
    return set_span_in_context(NonRecordingSpan(_read(traceparent)), NEW_TRACE)


def begun(
    name: str,
    kind: SpanKind,
    attributes: Attributes = NOTHING,
    *,
    context: Context | None = None,
    links: Links = NO_LINKS,
) -> Span:
    """Begin a span, by default a child of the current one; whoever began it ends it."""
    if _switch.tracer is None:
        return INVALID_SPAN
    return _switch.tracer.start_span(name, context, kind, dict(attributes), _linked(links))


def fail(span: Span, name: str) -> None:
    """Mark a span as failed for a cause of that name."""
    span.set_attribute("error.type", name)
    span.set_status(StatusCode.ERROR)


@contextmanager
def processing_batch(queue: str, batch: Sequence[Delivery]) -> Iterator[None]:
    """Span the work on a batch: a trace of its own, linked to those of its messages."""
    if _switch.tracer is None:
        yield
        return
    found = (
        (context, {"messaging.message.id": each.message.message_id or ""})
        for each in batch
        if (context := worth_a_link(traceparent_of(each.message.body)))
    )
    links = dict(islice(found, MOST_LINKS))  # no further body is read than that takes
    attributes = {**_consumer(queue), "messaging.batch.message_count": len(batch)}
    span = begun(f"process {queue}", SpanKind.CONSUMER, attributes, context=NEW_TRACE, links=links)
    with _as_current(span):
        yield


@contextmanager
def processing(delivery: Delivery) -> Iterator[None]:
    """Span the work on a single delivery, in the trace that its message carries."""
    if _switch.tracer is None:
        yield
        return
    queue, message = delivery.queue, delivery.message
    attributes = {**_consumer(queue), "messaging.message.id": message.message_id or ""}
    context = following(traceparent_of(message.body))
    with _as_current(begun(f"process {queue}", SpanKind.CONSUMER, attributes, context=context)):
        yield


def retried(message_id: str | None, tier: str) -> None:
    """Note on the current span that a message goes to a retry tier."""
    noted = {"messaging.message.id": message_id or "", "nexus.tier": tier}
    get_current_span().add_event("message_retried", noted)


def dead_lettered(message_id: str | None, reason: str) -> None:
    """Note on the current span that a message is dead."""
    span = get_current_span()
    noted = {"messaging.message.id": message_id or "", "nexus.reason": reason}
    span.add_event("message_dead_lettered", noted)
    fail(span, reason)


class Call:
    """A call over HTTP that is under way."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, name: str, *, status: int | None = None, well: bool) -> None:
        """Note what the answer is called here, and whether it is what was asked for."""
        self._span.set_attribute("nexus.answer", name)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if not well:
            fail(self._span, name)


@contextmanager
def calling(
    method: str, template: str, base: str, attributes: Attributes = NOTHING
) -> Iterator[Call]:
    """Span a call to ``template``, the path with names for its ids, of the server at ``base``.

    The URL itself is left out: some of Stripe's lists are asked by e-mail address.
    """
    if _switch.tracer is None:
        yield Call(INVALID_SPAN)
        return
    server = URL(base)
    described = {
        "http.request.method": method,
        "url.template": template,
        "server.address": server.host or "",
        "server.port": server.port or 0,
        **attributes,
    }
    with _as_current(begun(f"{method} {template}", SpanKind.CLIENT, described)) as span:
        yield Call(span)


class Undertaking:
    """Work whose extent only its end can tell: unless it is ``done``, its trace is never seen."""

    def __init__(self, name: str) -> None:
        self._span = begun(name, SpanKind.INTERNAL, context=NEW_TRACE)

    @property
    def traceparent(self) -> str | None:
        """Return what rows made by the work keep of it."""
        return worth_a_link(carried(self._span))

    def done(self, worked_on: Iterable[str], attributes: Attributes) -> None:
        """End the span, linked to the contexts of what was ``worked_on``."""
        for link in _linked(dict.fromkeys(worked_on, NOTHING)):
            self._span.add_link(link.context)
        self._span.set_attributes(dict(attributes))
        self._span.end()


@contextmanager
def _as_current(span: Span) -> Iterator[Span]:
    # An exception's text, which OpenTelemetry would record, may quote what it choked on.
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield span


def _consumer(queue: str) -> dict[str, str | int]:
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": queue,
    }


def _linked(links: Links) -> list[Link]:
    return [
        Link(_read(context), attributes)
        for context, attributes in islice(links.items(), MOST_LINKS)
    ]


def _read(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
