"""What follows after an attempt to publish a row."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.errors import PublishError, PublishTimeoutError
from nexus_messaging.topology import OUTSIDE_EVENTS
from nexus_outbox.outcomes import (
    MAX_PAUSE,
    Invalid,
    Ready,
    Refused,
    Row,
    Sent,
    Unanswered,
    outcome_of,
    read_answer,
    read_row,
)

ID = UUID("018f3a52-8000-7000-8000-000000000001")
BODY = (
    b'{"specversion": "1.0", "id": "018f3a52-8000-7000-8000-000000000001", "source": "hub",'
    b' "type": "user.created.v1", "time": "2026-03-01T12:00:00Z", "traceparent": null,'
    b' "data": {"user_id": "018f3a52-8000-7000-8000-000000000002", "email": "ada@example.com"}}'
)
TYPES = ", ".join(data.TYPE for data in OUTSIDE_EVENTS)
REFUSED = PublishError("not confirmed: ChannelAccessRefused")


def test_a_valid_row_is_published_as_it_was_written() -> None:
    """Its bytes are the same on every attempt."""
    read = read_row(Row(ID, 0, BODY))

    assert isinstance(read, Ready)
    assert (read.body, read.type) == (BODY, "user.created.v1")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (Row(ID, 0, None), "the body is too large"),
        (Row(uuid4(), 0, BODY), "id: is not the id of the row"),
        (Row(ID, 0, b"{"), "body: is not JSON"),
        (
            Row(ID, 0, BODY.replace(b"ada@example.com", b"ada")),
            "data.email: must be an e-mail address",
        ),
        (
            Row(ID, 0, BODY.replace(b"user.created.v1", b"usage.recorded.v1")),
            f"type: not an event that is read here, only {TYPES}",
        ),
    ],
)
def test_an_invalid_row_is_set_aside_with_the_rule(row: Row, fault: str) -> None:
    """No value of the event is in the text."""
    assert read_row(row) == Invalid(row.id, fault)


def test_no_address_is_in_a_repr() -> None:
    """Rows are shown in errors of tests and tracebacks."""
    row = Row(ID, 0, BODY)

    assert "ada" not in repr(row) + repr(read_row(row))


def test_an_outage_is_no_attempt() -> None:
    """A broker that is away says nothing about the event."""
    assert outcome_of(Row(ID, 3, BODY), REFUSED, answers=False) == Unanswered(ID)
    assert outcome_of(Row(ID, 3, BODY), None, answers=True) == Sent(ID)


def test_the_first_refusal_is_tried_again_at_once() -> None:
    """It may be the fault of a neighbour on the channel."""
    refused = outcome_of(Row(ID, 0, BODY), REFUSED, answers=True)

    assert refused == Refused(ID, str(REFUSED), timedelta())


@given(st.integers(min_value=1, max_value=2**31))
def test_pauses_grow_and_have_a_limit(attempts: int) -> None:
    """Of any number of refusals: an event is tried again for as long as it is refused."""
    now = outcome_of(Row(ID, attempts, BODY), REFUSED, answers=True)
    later = outcome_of(Row(ID, attempts + 1, BODY), REFUSED, answers=True)

    assert isinstance(now, Refused)
    assert isinstance(later, Refused)
    assert timedelta(0) < now.pause <= later.pause <= timedelta(seconds=MAX_PAUSE)


def test_an_accepted_batch_has_no_refused_event() -> None:
    """The answer says how many events the broker has confirmed."""
    assert read_answer(202, b'{"accepted": 3}', 3) == {}


@pytest.mark.parametrize("body", [b"", b"queued", b"{}", b'{"accepted": 2}', b'{"accepted": true}'])
def test_a_202_of_something_else_leaves_the_events_waiting(body: bytes) -> None:
    """Such as a gateway's that only queues requests, at a wrong address."""
    assert isinstance(read_answer(202, body, 3), PublishTimeoutError)


def test_refused_events_are_named_with_their_rules() -> None:
    """An index that the batch does not have is no event's."""
    answer = (
        b'{"errors": [{"index": 1, "field": "type", "rule": "not yours"},'
        b' {"index": 1, "field": "source", "rule": "nor this"},'
        b' {"index": 7, "field": "type", "rule": "not yours"}]}'
    )

    assert read_answer(403, answer, 3) == {1: "type: not yours"}


@given(st.integers(100, 599), st.binary() | st.sampled_from((b"[]", b'{"errors": [{}]}', b"null")))
def test_any_other_answer_says_nothing_about_an_event(status: int, body: bytes) -> None:
    """Such as a gateway's page, or an answer without indexes."""
    assert isinstance(read_answer(status, body, 3), PublishTimeoutError)
