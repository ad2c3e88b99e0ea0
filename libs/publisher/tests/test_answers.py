"""What the events API's answers mean."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_publisher.answers import MAX_RETRY_AFTER, Trouble, answer_to

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("errors"), inner),
)


@given(
    status=st.integers(100, 599),
    body=JSON | st.fixed_dictionaries({"errors": JSON}),
    size=st.integers(1, 20),
    retry_after=st.none() | st.text(),
)
def test_no_other_answer_confirms_and_none_fails(
    status: int, body: object, size: int, retry_after: str | None
) -> None:
    """Each event is refused by its index, or sent again."""
    answer = answer_to(status, body, size, retry_after=retry_after)

    assert not answer.confirmed
    assert all(0 <= index < size for index in answer.refused)
    assert answer.refused or answer.failure


def test_a_202_with_the_number_of_events_confirms_them() -> None:
    """As the API answers."""
    assert answer_to(202, {"accepted": 3}, 3).confirmed == {0, 1, 2}


@pytest.mark.parametrize("body", [None, {}, [], {"accepted": 2}, {"accepted": "3"}])
def test_a_202_of_somebody_else_confirms_nothing(body: object) -> None:
    """A gateway may answer so in place of the API: the events are sent again, slowly."""
    answer = answer_to(202, body, 3)

    assert not answer.confirmed
    assert answer.failure is not None
    assert answer.failure.trouble is Trouble.CONFIGURATION


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (401, Trouble.CONFIGURATION),
        (403, Trouble.CONFIGURATION),
        (404, Trouble.CONFIGURATION),
        (415, Trouble.CONFIGURATION),
        (408, Trouble.OUTAGE),
        (429, Trouble.OUTAGE),
        (500, Trouble.OUTAGE),
        (503, Trouble.OUTAGE),
        (413, Trouble.TOO_LARGE),
        (400, Trouble.CONFIGURATION),
    ],
)
def test_answer_says_what_mends_it(status: int, trouble: Trouble) -> None:
    """A 400 without a problem is a gateway's: it drops nothing."""
    failure = answer_to(status, None, 3).failure

    assert failure is not None
    assert failure.trouble is trouble


def test_bad_events_are_refused_with_all_their_rules() -> None:
    """One event may break several; what names no event of the batch is passed over."""
    errors = [
        {"index": 1, "field": "data.user_id", "rule": "must be a UUID"},
        {"index": 1, "field": "time", "rule": "must be a time\u202e"},
        {"index": 7, "field": "id", "rule": "is not in the batch"},
    ]

    answer = answer_to(400, {"errors": errors}, 3)

    assert answer.refused == {1: "data.user_id: must be a UUID; time: must be a time\\u202e"}
    assert answer.failure is None


def test_problem_that_names_no_event_halves_the_batch() -> None:
    """The one at fault is found by halving."""
    failure = answer_to(400, {"title": "bad"}, 3).failure

    assert failure is not None
    assert failure.trouble is Trouble.TOO_LARGE


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), (" 7 ", 7.0), ("Mon, 30 Nov 2026 10:00:00 GMT", None), ("-1", None), (None, None)],
)
def test_retry_after_is_read_in_seconds(text: str | None, seconds: float | None) -> None:
    """Our API gives seconds; a date leaves it to the backoff."""
    failure = answer_to(503, None, 1, retry_after=text).failure

    assert failure is not None
    assert failure.retry_after == seconds


def test_retry_after_of_years_is_an_hour() -> None:
    """A gateway's mistake must not silence a publisher for good."""
    failure = answer_to(503, None, 1, retry_after="9" * 30).failure

    assert failure is not None
    assert failure.retry_after == MAX_RETRY_AFTER
