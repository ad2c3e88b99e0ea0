"""Spans: contexts of messages and events, links, and values that spans never hold."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from nexus_contracts import Event, ToolExecuted, UserCreated, read_event
from nexus_messaging.errors import UnroutableError
from nexus_messaging.message import Delivery, Message
from nexus_messaging.outgoing import OutgoingEvent
from nexus_messaging.tracing import (
    MAX_LINKS,
    WorkSpan,
    batch_span,
    call_span,
    message_span,
    parent_context,
    record_dead_letter,
    sampled_traceparent,
    span_traceparent,
    spans_enabled,
    start_span,
)
from support import deliveries
from support.events import tool_run
from support.spans import (
    PUBLISHER,
    TRACE,
    Spans,
    attributes,
    links,
    parent,
    recorded_spans,
    written,
)

QUEUE = "usage-ingest.tool-executed"
UNSAMPLED = PUBLISHER[:-1] + "0"
SECRET = "s3cret@example.com"

ids = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
span_ids = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Make spans during a test."""
    with recorded_spans() as spans:
        yield spans


def event(traceparent: str | None) -> Event[ToolExecuted]:
    """Return a tool run of some trace."""
    return tool_run().model_copy(update={"traceparent": traceparent})


def delivery(traceparent: str | None = None, body: bytes | None = None) -> Delivery:
    """Return a delivery of a tool run of some trace."""
    message = Message.of(event(traceparent))
    if body is not None:
        message = Message(body, message_id=message.message_id)
    return deliveries.delivery(message, QUEUE)


def numbered(number: int) -> str:
    """Return another publisher's context."""
    return f"00-{TRACE}-{number + 1:016x}-01"


@given(trace_id=ids, span_id=span_ids, flags=st.integers(0, 255))
def test_trace_id_and_sampling_decision_are_propagated(
    trace_id: str, span_id: str, flags: int
) -> None:
    """For any ids, the new span has the same trace id and the named span as its parent."""
    received = f"00-{trace_id}-{span_id}-{flags:02x}"

    with recorded_spans():
        span = start_span("x", SpanKind.INTERNAL, context=parent_context(received))
        (goes,) = [span_traceparent(span)]

    assert goes is not None
    _, same_trace, other_span, decision = goes.split("-")
    assert (same_trace, int(decision, 16) & 1) == (trace_id, flags & 1)
    assert other_span != span_id
    assert span_traceparent(get_current_span(parent_context(received))) == received


def test_span_of_a_message_is_a_child_of_its_publisher(spans: Spans) -> None:
    """No value of the message is an attribute of the span."""
    handled = delivery(PUBLISHER)

    with message_span(handled):
        pass

    (span,) = spans.all()
    assert (span.name, span.kind, parent(span)) == (
        f"process {QUEUE}",
        SpanKind.CONSUMER,
        PUBLISHER,
    )
    assert attributes(span) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": QUEUE,
        "messaging.message.id": handled.message.message_id,
    }


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'["traceparent"]',
        b'{"traceparent": 7}',
        b'{"traceparent": "s3cret@example.com"}',
        b'{"data": {"traceparent": "' + PUBLISHER.encode() + b'"}}',
        b'{"traceparent": "' + PUBLISHER.encode() + b'"}' + b" " * 2**18,
    ],
)
def test_message_without_a_readable_context_starts_a_trace(spans: Spans, body: bytes) -> None:
    """The context is invalid, in the wrong place, or in an invalid body."""
    with message_span(delivery(body=body)):
        pass
    with batch_span(QUEUE, [delivery(body=body)]):
        pass

    assert [(parent(span), links(span)) for span in spans.all()] == [(None, []), (None, [])]
    assert SECRET not in "".join(span.to_json() for span in spans.all())


def test_batch_starts_a_trace_linked_to_its_messages(spans: Spans) -> None:
    """Each sampled trace is linked once."""
    batch = [delivery(PUBLISHER), delivery(PUBLISHER), delivery(UNSAMPLED), delivery(None)]

    with message_span(delivery(PUBLISHER)), batch_span(QUEUE, batch):
        pass

    span, _ = spans.all()
    assert (span.kind, parent(span), links(span)) == (SpanKind.CONSUMER, None, [PUBLISHER])
    assert attributes(span)["messaging.batch.message_count"] == 4
    assert span.links[0].attributes == {"messaging.message.id": batch[1].message.message_id}


def test_links_of_a_span_are_bounded(spans: Spans) -> None:
    """The first ones are kept: a batch may hold several times as many messages."""
    contexts = [numbered(number) for number in range(MAX_LINKS * 2)]

    with batch_span(QUEUE, [delivery(each) for each in contexts]):
        pass
    work = WorkSpan("claim usage")
    work.end(contexts, {})

    assert [links(span) for span in spans.all()] == [contexts[:MAX_LINKS]] * 2


def test_work_span_that_is_not_ended_is_not_exported(spans: Spans) -> None:
    """Otherwise most spans would be of a loop that polls every second without finding work."""
    WorkSpan("claim usage")
    work = WorkSpan("claim usage")
    kept = work.traceparent
    work.end([PUBLISHER], {"nexus.events": 3})

    (span,) = spans.all()
    assert kept == written(span.context)
    assert (parent(span), links(span), attributes(span)) == (
        None,
        [PUBLISHER],
        {"nexus.events": 3},
    )


def test_published_event_carries_the_context_of_its_span(spans: Spans) -> None:
    """The span is a child of the current one; the confirm or the failure ends it."""
    with message_span(delivery(PUBLISHER)):
        good, bad = OutgoingEvent(event(None)), OutgoingEvent(event(None))
    good.end(None)
    bad.end(UnroutableError("no queue takes it"))

    work, sent, failed = spans.all()
    body = good.publication.message.body
    assert read_event(body, [ToolExecuted]).traceparent == written(sent.context)
    assert parent(sent) == parent(failed) == written(work.context)
    assert (sent.name, sent.kind) == ("publish internal:tool.executed.v1", SpanKind.PRODUCER)
    assert (sent.status.status_code, failed.status.status_code) == (
        StatusCode.UNSET,
        StatusCode.ERROR,
    )
    assert attributes(failed)["error.type"] == "UnroutableError"


def test_span_of_an_event_has_the_given_parent_or_link(spans: Spans) -> None:
    """A context stored in a row is used long after its span ended."""
    OutgoingEvent(event(None), parent=PUBLISHER).end(None)
    OutgoingEvent(event(None), link=PUBLISHER).end(None)

    followed, linked = spans.all()
    assert (parent(followed), links(followed)) == (PUBLISHER, [])
    assert (parent(linked), links(linked)) == (None, [PUBLISHER])


def test_unsampled_trace_is_propagated_as_unsampled() -> None:
    """Otherwise the next service would start an incomplete trace."""
    with recorded_spans() as spans, message_span(delivery(UNSAMPLED)):
        outgoing = OutgoingEvent(event(None))

    carried_on = read_event(outgoing.publication.message.body, [ToolExecuted]).traceparent
    assert spans.all() == []
    assert carried_on is not None
    assert (carried_on[3:35], carried_on[-2:]) == (TRACE, "00")


def test_unsampled_context_is_not_stored() -> None:
    """A link to an unsampled span would lead nowhere."""
    with recorded_spans(ALWAYS_OFF):
        work = WorkSpan("claim usage")
        kept = [work.traceparent, sampled_traceparent(UNSAMPLED), sampled_traceparent(PUBLISHER)]

    assert kept == [None, None, PUBLISHER]


def test_disabled_tracing_stores_and_propagates_nothing() -> None:
    """Tracing is disabled by default."""
    published = event(None)
    with batch_span(QUEUE, [delivery(PUBLISHER)]), message_span(delivery(PUBLISHER)):
        current, outgoing = (
            get_current_span(),
            OutgoingEvent(published, parent=PUBLISHER, link=PUBLISHER),
        )
        with call_span("GET", "/v1/x", "https://example.com") as call:
            call.record_answer("ok", ok=True)
    record_dead_letter("id", "invalid")
    work = WorkSpan("claim usage")
    work.end([PUBLISHER], {})

    assert not spans_enabled()
    assert not current.get_span_context().is_valid
    assert (work.traceparent, sampled_traceparent(PUBLISHER), span_traceparent()) == (
        None,
        None,
        None,
    )
    assert outgoing.publication.message.body == published.body()


def test_span_holds_no_error_text_and_no_body_value(spans: Spans) -> None:
    """OpenTelemetry would record the text of an exception, which may quote a value."""
    user = Event.of(
        UserCreated(user_id=uuid4(), email=SECRET, name=SECRET),
        source="test",
        id=uuid4(),
        time=datetime.now(UTC),
    )
    handled = deliveries.delivery(Message.of(user), QUEUE)
    for context in (
        message_span(handled),
        batch_span(QUEUE, [handled]),
        call_span("GET", "/v1/customers", "https://example.com"),
    ):
        with pytest.raises(ValueError, match=SECRET), context:
            raise ValueError(SECRET)
    OutgoingEvent(user).end(UnroutableError(SECRET))

    assert len(spans.all()) == 4
    assert SECRET not in "".join(span.to_json() for span in spans.all())


def test_call_span_names_template_server_and_answer(
    spans: Spans,
) -> None:
    """The answer has a status and a name; an answer that is not ok makes the span an error."""
    base = "http://127.0.0.1:12111"
    with call_span("POST", "/v1/billing/meter_events", base, {"nexus.x": "y"}) as call:
        call.record_answer("rate_limited", status=429, ok=False)

    (span,) = spans.all()
    assert (span.name, span.kind) == ("POST /v1/billing/meter_events", SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span) == {
        "http.request.method": "POST",
        "url.template": "/v1/billing/meter_events",
        "server.address": "127.0.0.1",
        "server.port": 12111,
        "nexus.x": "y",
        "nexus.answer": "rate_limited",
        "http.response.status_code": 429,
        "error.type": "rate_limited",
    }
