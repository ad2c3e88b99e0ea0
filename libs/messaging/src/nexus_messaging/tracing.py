"""Spans: trace contexts are read from messages, passed on to events and HTTP calls, or linked.

A step with one cause is a child span. A batch, which has many causes, and a claim, which has many
effects, use links: a trace must not grow with the load, or no viewer could show it.

Without ``use_tracer_provider`` no span is made, and the functions here cost next to nothing.
Attributes hold ids, names of this project and numbers. They hold no value of a message and no text
of an exception.
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

MAX_LINKS: Final = 128
"""Links of one span: the default limit of OpenTelemetry's SDK."""

Attributes = Mapping[str, str | int]
Links = Mapping[str, Attributes]
"""The attributes of each link, by the traceparent of the linked span."""

NO_ATTRIBUTES: Final[Mapping[str, str | int]] = MappingProxyType({})
NO_LINKS: Final[Links] = MappingProxyType({})
NEW_TRACE: Final = Context()


@dataclass(slots=True)
class _State:
    tracer: Tracer | None = None


_state: Final = _State()


def use_tracer_provider(provider: TracerProvider | None) -> None:
    """Make spans with ``provider`` from now on; with ``None``, make no more."""
    _state.tracer = None if provider is None else provider.get_tracer("nexus_messaging")


def spans_enabled() -> bool:
    """Whether spans are made."""
    return _state.tracer is not None


def span_traceparent(span: Span | None = None) -> str | None:
    """Return the traceparent of ``span``, by default of the current one; None if it has none."""
    context = (get_current_span() if span is None else span).get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def sampled_traceparent(traceparent: str | None) -> str | None:
    """Return ``traceparent`` if spans are made and the span that it names was sampled."""
    if _state.tracer is None or traceparent is None:
        return None
    return traceparent if int(traceparent[-2:], 16) & TraceFlags.SAMPLED else None


def parent_context(traceparent: str | None) -> Context:
    """Return the context that makes a span the child of ``traceparent``, or starts a trace."""
    if traceparent is None:
        return NEW_TRACE
    return set_span_in_context(NonRecordingSpan(_span_context(traceparent)), NEW_TRACE)


def start_span(
    name: str,
    kind: SpanKind,
    attributes: Attributes = NO_ATTRIBUTES,
    *,
    context: Context | None = None,
    links: Links = NO_LINKS,
) -> Span:
    """Start a span, by default a child of the current one; the caller must end it."""
    if _state.tracer is None:
        return INVALID_SPAN
    return _state.tracer.start_span(name, context, kind, dict(attributes), _links_to(links))


def mark_failed(span: Span, name: str) -> None:
    """Mark a span as failed; ``name`` becomes its ``error.type``."""
    span.set_attribute("error.type", name)
    span.set_status(StatusCode.ERROR)


@contextmanager
def batch_span(queue: str, batch: Sequence[Delivery]) -> Iterator[None]:
    """Make a span of the work on a batch: a new trace, linked to those of its messages."""
    if _state.tracer is None:
        yield
        return
    found = (
        (context, {"messaging.message.id": each.message.message_id or ""})
        for each in batch
        if (context := sampled_traceparent(traceparent_of(each.body)))
    )
    links = dict(islice(found, MAX_LINKS))  # stops reading bodies at the limit
    attributes = {**_consumer_attributes(queue), "messaging.batch.message_count": len(batch)}
    span = start_span(
        f"process {queue}", SpanKind.CONSUMER, attributes, context=NEW_TRACE, links=links
    )
    with _activate(span):
        yield


@contextmanager
def message_span(delivery: Delivery) -> Iterator[None]:
    """Make a span of the work on one delivery, in the trace of its message."""
    if _state.tracer is None:
        yield
        return
    queue, message_id = delivery.queue, delivery.message.message_id
    attributes = {**_consumer_attributes(queue), "messaging.message.id": message_id or ""}
    context = parent_context(traceparent_of(delivery.body))
    with _activate(start_span(f"process {queue}", SpanKind.CONSUMER, attributes, context=context)):
        yield


def record_retry(message_id: str | None, tier: str) -> None:
    """Add an event to the current span: the message goes to a retry tier."""
    attributes = {"messaging.message.id": message_id or "", "nexus.tier": tier}
    get_current_span().add_event("message_retried", attributes)


def record_dead_letter(message_id: str | None, reason: str) -> None:
    """Add an event to the current span: the message is dead-lettered; the span has failed."""
    span = get_current_span()
    attributes = {"messaging.message.id": message_id or "", "nexus.reason": reason}
    span.add_event("message_dead_lettered", attributes)
    mark_failed(span, reason)


class Call:
    """A running HTTP call."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def record_answer(self, name: str, *, status: int | None = None, ok: bool) -> None:
        """Record the name of the answer, its HTTP status, and whether the call succeeded."""
        self._span.set_attribute("nexus.answer", name)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if not ok:
            mark_failed(self._span, name)


@contextmanager
def call_span(
    method: str, template: str, base: str, attributes: Attributes = NO_ATTRIBUTES
) -> Iterator[Call]:
    """Make a span of a call to the server at ``base``.

    ``template`` is the path with placeholders for ids. The URL itself is left out: some of Stripe's
    lists take an e-mail address as a parameter.
    """
    if _state.tracer is None:
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
    with _activate(start_span(f"{method} {template}", SpanKind.CLIENT, described)) as span:
        yield Call(span)


class WorkSpan:
    """The span of a polling job. It is exported only if ``end`` is called, when there was work."""

    def __init__(self, name: str) -> None:
        self._span = start_span(name, SpanKind.INTERNAL, context=NEW_TRACE)

    @property
    def traceparent(self) -> str | None:
        """The context that rows made by the work store, if the span is sampled."""
        return sampled_traceparent(span_traceparent(self._span))

    def end(self, linked_to: Iterable[str], attributes: Attributes) -> None:
        """End the span with links to the traceparents in ``linked_to``."""
        for link in _links_to(dict.fromkeys(linked_to, NO_ATTRIBUTES)):
            self._span.add_link(link.context)
        self._span.set_attributes(dict(attributes))
        self._span.end()


@contextmanager
def _activate(span: Span) -> Iterator[Span]:
    # OpenTelemetry would record the text of an exception, which may quote the failing value.
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield span


def _consumer_attributes(queue: str) -> dict[str, str | int]:
    return {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": queue,
    }


def _links_to(links: Links) -> list[Link]:
    return [
        Link(_span_context(context), attributes)
        for context, attributes in islice(links.items(), MAX_LINKS)
    ]


def _span_context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
