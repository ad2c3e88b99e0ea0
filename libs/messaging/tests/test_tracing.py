"""How contexts enter with messages, go on with events, and what is never told of either."""

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
from nexus_messaging.sending import Sending
from nexus_messaging.tracing import (
    MOST_LINKS,
    Undertaking,
    begun,
    calling,
    carried,
    dead_lettered,
    following,
    is_on,
    processing,
    processing_batch,
    worth_a_link,
)
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
    return Delivery(message, QUEUE, "events")


def numbered(number: int) -> str:
    """Return another publisher's context."""
    return f"00-{TRACE}-{number + 1:016x}-01"


@given(trace_id=ids, span_id=span_ids, flags=st.integers(0, 255))
def test_a_context_goes_on_as_it_came(trace_id: str, span_id: str, flags: int) -> None:
    """Whatever the ids: the trace stays, the parent is the span named, the decision is kept."""
    came = f"00-{trace_id}-{span_id}-{flags:02x}"

    with recorded_spans():
        span = begun("x", SpanKind.INTERNAL, context=following(came))
        (goes,) = [carried(span)]

    assert goes is not None
    _, same_trace, other_span, decision = goes.split("-")
    assert (same_trace, int(decision, 16) & 1) == (trace_id, flags & 1)
    assert other_span != span_id
    assert carried(get_current_span(following(came))) == came


def test_a_message_is_processed_in_the_trace_that_it_carries(spans: Spans) -> None:
    """As a child of the span that published it; what it holds besides is no attribute."""
    handled = delivery(PUBLISHER)

    with processing(handled):
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
def test_a_message_without_a_readable_context_begins_a_trace(spans: Spans, body: bytes) -> None:
    """Whatever is in its place, in the wrong place, or wrong with the rest."""
    with processing(delivery(body=body)):
        pass
    with processing_batch(QUEUE, [delivery(body=body)]):
        pass

    assert [(parent(span), links(span)) for span in spans.all()] == [(None, []), (None, [])]
    assert SECRET not in "".join(span.to_json() for span in spans.all())


def test_a_batch_is_a_trace_of_its_own_linked_to_its_messages(spans: Spans) -> None:
    """Each trace once, and only where somebody recorded what the link leads to."""
    batch = [delivery(PUBLISHER), delivery(PUBLISHER), delivery(UNSAMPLED), delivery(None)]

    with processing(delivery(PUBLISHER)), processing_batch(QUEUE, batch):
        pass

    span, _ = spans.all()
    assert (span.kind, parent(span), links(span)) == (SpanKind.CONSUMER, None, [PUBLISHER])
    assert attributes(span)["messaging.batch.message_count"] == 4
    assert span.links[0].attributes == {"messaging.message.id": batch[1].message.message_id}


def test_a_span_has_no_more_links_than_a_span_may_have(spans: Spans) -> None:
    """The first of them stay: a batch may hold several times as many messages."""
    contexts = [numbered(number) for number in range(MOST_LINKS * 2)]

    with processing_batch(QUEUE, [delivery(each) for each in contexts]):
        pass
    work = Undertaking("claim usage")
    work.done(contexts, {})

    assert [links(span) for span in spans.all()] == [contexts[:MOST_LINKS]] * 2


def test_work_that_turned_out_to_be_none_leaves_no_span(spans: Spans) -> None:
    """A loop that looks every second would otherwise be most of what one sees."""
    Undertaking("claim usage")
    work = Undertaking("claim usage")
    kept = work.traceparent
    work.done([PUBLISHER], {"nexus.events": 3})

    (span,) = spans.all()
    assert kept == written(span.context)
    assert (parent(span), links(span), attributes(span)) == (
        None,
        [PUBLISHER],
        {"nexus.events": 3},
    )


def test_an_event_carries_the_span_that_publishes_it(spans: Spans) -> None:
    """A child of the work it comes from; its confirm or failure ends the span."""
    with processing(delivery(PUBLISHER)):
        good, bad = Sending(event(None)), Sending(event(None))
    good.ended(None)
    bad.ended(UnroutableError("no queue takes it"))

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


def test_an_event_may_follow_another_span_than_the_current_one_or_link_to_it(spans: Spans) -> None:
    """What was stored with a row goes on from there, long after that span ended."""
    Sending(event(None), follows=PUBLISHER).ended(None)
    Sending(event(None), link=PUBLISHER).ended(None)

    followed, linked = spans.all()
    assert (parent(followed), links(followed)) == (PUBLISHER, [])
    assert (parent(linked), links(linked)) == (None, [PUBLISHER])


def test_a_trace_that_is_not_sampled_goes_on_as_such() -> None:
    """Else the next service would begin half a trace of its own."""
    with recorded_spans() as spans, processing(delivery(UNSAMPLED)):
        sending = Sending(event(None))

    carried_on = read_event(sending.publication.message.body, [ToolExecuted]).traceparent
    assert spans.all() == []
    assert carried_on is not None
    assert (carried_on[3:35], carried_on[-2:]) == (TRACE, "00")


def test_what_nobody_sampled_is_not_kept_in_a_row() -> None:
    """A link to it would lead nowhere, and rows stay for ever."""
    with recorded_spans(ALWAYS_OFF):
        work = Undertaking("claim usage")
        kept = [work.traceparent, worth_a_link(UNSAMPLED), worth_a_link(PUBLISHER)]

    assert kept == [None, None, PUBLISHER]


def test_while_tracing_is_off_nothing_is_kept_and_nothing_carried() -> None:
    """Which is how a service starts unless it is told otherwise."""
    published = event(None)
    with processing_batch(QUEUE, [delivery(PUBLISHER)]), processing(delivery(PUBLISHER)):
        current, sending = get_current_span(), Sending(published, follows=PUBLISHER, link=PUBLISHER)
        with calling("GET", "/v1/x", "https://example.com") as call:
            call.answered("ok", well=True)
    dead_lettered("id", "invalid")
    work = Undertaking("claim usage")
    work.done([PUBLISHER], {})

    assert not is_on()
    assert not current.get_span_context().is_valid
    assert (work.traceparent, worth_a_link(PUBLISHER), carried()) == (None, None, None)
    assert sending.publication.message.body == published.body()


def test_no_text_of_an_error_and_nothing_of_a_body_enters_a_span(spans: Spans) -> None:
    """OpenTelemetry would record exceptions with their texts, and those quote what failed."""
    user = Event.of(
        UserCreated(user_id=uuid4(), email=SECRET, name=SECRET),
        source="test",
        id=uuid4(),
        time=datetime.now(UTC),
    )
    handled = Delivery(Message.of(user), QUEUE, "events")
    for context in (
        processing(handled),
        processing_batch(QUEUE, [handled]),
        calling("GET", "/v1/customers", "https://example.com"),
    ):
        with pytest.raises(ValueError, match=SECRET), context:
            raise ValueError(SECRET)
    Sending(user).ended(UnroutableError(SECRET))

    assert len(spans.all()) == 4
    assert SECRET not in "".join(span.to_json() for span in spans.all())


def test_a_call_is_told_by_its_template_its_server_and_what_its_answer_means(
    spans: Spans,
) -> None:
    """By status and by our own name; an answer that was not asked for is an error."""
    base = "http://127.0.0.1:12111"
    with calling("POST", "/v1/billing/meter_events", base, {"nexus.x": "y"}) as call:
        call.answered("rate_limited", status=429, well=False)

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
