"""Where a dead letter says it belongs: by its body, and never lending an outsider our rights."""

from datetime import UTC, datetime

import pytest

from nexus_messaging.message import Delivery, Message
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import DeadLetter
from nexus_messaging.settlement import home
from nexus_messaging.topology import (
    EVENTS,
    INTERNAL,
    RETRY_RETURN,
    TOOL_EXECUTED_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_CREATED_QUEUE,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MOVED = ""
USER, REPORT = "user.created.v1", "usage.recorded.v1"


def envelope(event_type: str) -> bytes:
    """Write the least that has a type."""
    return f'{{"specversion": "1.0", "type": "{event_type}"}}'.encode()


def home_of(
    body: bytes,
    queue: str,
    exchange: str,
    *,
    requeue_to: str | None = None,
    event_type: str | None = None,
    reason: Reason = Reason.INVALID,
) -> str:
    """Return the home of a dead letter made of a delivery."""
    headers = {} if requeue_to is None else {"nexus-requeue-to": requeue_to}
    delivery = Delivery(Message(body, type=event_type), queue, exchange, headers=headers)
    return home(delivery, DeadLetter(reason, "", 1, NOW))


@pytest.mark.parametrize("exchange", [MOVED, EVENTS, INTERNAL, RETRY_RETURN])
def test_an_outsider_s_event_goes_home_however_it_arrived(exchange: str) -> None:
    """By a wrong move, by a wrong routing key, or back from a tier after either."""
    assert home_of(envelope(USER), TOOL_EXECUTED_QUEUE, exchange) == USER_CREATED_QUEUE


@pytest.mark.parametrize("requeue_to", [None, USAGE_RECORDED_QUEUE])
def test_a_report_that_was_moved_to_another_queue_goes_home(requeue_to: str | None) -> None:
    """From a tier, where it had no such header, or from its own dead-letter queue."""
    found = home_of(envelope(REPORT), TOOL_EXECUTED_QUEUE, MOVED, requeue_to=requeue_to)

    assert found == USAGE_RECORDED_QUEUE


@pytest.mark.parametrize(
    ("exchange", "requeue_to"),
    [(EVENTS, None), (RETRY_RETURN, None), (MOVED, TOOL_EXECUTED_QUEUE)],
)
def test_a_forged_report_stays_among_outsiders(exchange: str, requeue_to: str | None) -> None:
    """An operator who follows the header must not bring it to Stripe."""
    found = home_of(envelope(REPORT), TOOL_EXECUTED_QUEUE, exchange, requeue_to=requeue_to)

    assert found == TOOL_EXECUTED_QUEUE


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"{}", b"1" * 300_000])
def test_a_body_without_a_type_stays_where_it_arrived(body: bytes) -> None:
    """Its property may say anything."""
    assert home_of(body, USER_CREATED_QUEUE, MOVED, event_type=REPORT) == USER_CREATED_QUEUE


def test_the_body_of_a_message_that_killed_its_readers_is_not_read() -> None:
    """Whatever killed them is in it; the property is all there is to go by."""
    crashed = Reason.CRASHED_CONSUMER
    body = envelope(REPORT)

    found = home_of(body, TOOL_EXECUTED_QUEUE, MOVED, event_type=USER, reason=crashed)

    assert found == USER_CREATED_QUEUE
