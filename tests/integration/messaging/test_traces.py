"""The trace context of a message, whatever happens to the message."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode, get_current_span

from integration.messaging.bench import DEAD_LETTERS, QUEUE, Bench
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.message import Delivery
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, Outcome
from support.events import tool_run
from support.spans import PUBLISHER, links, parent, recorded_spans
from support.waiting import eventually

WORK = f"process {QUEUE}"


def origin(span: ReadableSpan) -> str | None:
    """Return whose work a span continues: a batch links to it."""
    return parent(span) or next(iter(links(span)), None)


def event_names(span: ReadableSpan) -> list[str]:
    """Return what was noted on a span."""
    return [event.name for event in span.events]


async def test_a_message_keeps_its_context_through_retries_dead_letters_and_moves(
    bench: Bench,
) -> None:
    """Its body carries it, and no copy changes a body; each span says what became of it."""
    answers = iter([TransientError("not yet"), PermanentError(Reason.INVALID, "never"), None])

    async def behave(_delivery: Delivery) -> Outcome:
        if error := next(answers):
            raise error
        return Done()

    bench.behave = behave
    event = tool_run().model_copy(update={"traceparent": PUBLISHER})
    with recorded_spans() as spans:
        async with bench.consuming():
            await bench.vhost.publish(event)
            await bench.dead_letters(1)
            await eventually(lambda: bench.vhost.depth(DEAD_LETTERS), bool)
            await bench.vhost.move(DEAD_LETTERS, QUEUE)
            await spans.until(WORK, 3)

    works = spans.named(WORK)
    assert [origin(span) for span in works] == [PUBLISHER] * 3
    assert [event_names(span) for span in works] == [
        ["message_retried"],
        ["message_dead_lettered"],
        [],
    ]
    assert [span.status.status_code for span in works] == [
        StatusCode.UNSET,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]


@pytest.mark.parametrize("traceparent", [None, PUBLISHER], ids=["untraced", "traced"])
async def test_while_tracing_is_off_a_handler_runs_in_no_span(
    bench: Bench, traceparent: str | None
) -> None:
    """Whatever the message carries."""
    seen = []

    async def behave(_delivery: Delivery) -> Outcome:
        seen.append(get_current_span().get_span_context().is_valid)
        return Done()

    bench.behave = behave
    async with bench.consuming():
        await bench.vhost.publish(tool_run().model_copy(update={"traceparent": traceparent}))
        await bench.all_done(1)

    assert seen == [False]
