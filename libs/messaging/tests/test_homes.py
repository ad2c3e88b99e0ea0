"""The home queue of a dead letter: by its body; an outside message gets no internal queue."""

from datetime import UTC, datetime

import pytest

from nexus_messaging.message import Message
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
from support.deliveries import delivery

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MOVED = ""
USER, REPORT = "user.created.v1", "usage.recorded.v1"


def envelope(event_type: str) -> bytes:
    """Return the smallest envelope that has a type."""
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
    moved = delivery(Message(body, type=event_type), queue, exchange, headers=headers)
    return home(moved, DeadLetter(reason, "", 1, NOW))


@pytest.mark.parametrize("exchange", [MOVED, EVENTS, INTERNAL, RETRY_RETURN])
def test_outside_event_names_its_own_queue_however_it_arrived(exchange: str) -> None:
    """After a wrong move, with a wrong routing key, or from a tier after either."""
    assert home_of(envelope(USER), TOOL_EXECUTED_QUEUE, exchange) == USER_CREATED_QUEUE


@pytest.mark.parametrize("requeue_to", [None, USAGE_RECORDED_QUEUE])
def test_report_moved_to_a_wrong_queue_names_its_own_queue(requeue_to: str | None) -> None:
    """From a tier, without the header, or from its own dead-letter queue."""
    found = home_of(envelope(REPORT), TOOL_EXECUTED_QUEUE, MOVED, requeue_to=requeue_to)

    assert found == USAGE_RECORDED_QUEUE


@pytest.mark.parametrize(
    ("exchange", "requeue_to"),
    [(EVENTS, None), (RETRY_RETURN, None), (MOVED, TOOL_EXECUTED_QUEUE)],
)
def test_forged_report_names_no_internal_queue(exchange: str, requeue_to: str | None) -> None:
    """An operator who follows the header must not move it to stripe-reporter."""
    found = home_of(envelope(REPORT), TOOL_EXECUTED_QUEUE, exchange, requeue_to=requeue_to)

    assert found == TOOL_EXECUTED_QUEUE


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"{}", b"1" * 300_000])
def test_body_without_a_type_names_the_queue_it_arrived_in(body: bytes) -> None:
    """The type in the message's properties may be wrong."""
    assert home_of(body, USER_CREATED_QUEUE, MOVED, event_type=REPORT) == USER_CREATED_QUEUE


def test_body_of_a_message_that_killed_consumers_is_not_read() -> None:
    """The body is the cause; only the type in the properties is used."""
    crashed = Reason.CRASHED_CONSUMER
    body = envelope(REPORT)

    found = home_of(body, TOOL_EXECUTED_QUEUE, MOVED, event_type=USER, reason=crashed)

    assert found == USER_CREATED_QUEUE
