"""Pauses and sizes of the batches of one type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_publisher.answers import Failure, Trouble
from nexus_publisher.lanes import FIRST_PAUSE, MAX_EVENTS, MAX_PAUSE, Lane

OUTAGE = Failure(Trouble.OUTAGE, "away")
FORBIDDEN = Failure(Trouble.CONFIGURATION, "forbidden")

chances = st.floats(0, 1, exclude_max=True)


@given(failures=st.integers(1, 2000), chance=chances)
def test_pauses_double_up_to_a_minute_and_are_random(failures: int, chance: float) -> None:
    """Full jitter: hosts that failed together do not come back together."""
    lane = Lane()
    for _ in range(failures):
        lane.failed(OUTAGE, now=100.0, chance=chance)

    longest = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 50), MAX_PAUSE)
    assert lane.due_at - 100.0 == pytest.approx(longest * chance)


@given(chance=chances)
def test_what_a_person_must_mend_is_tried_slowly_from_the_start(chance: float) -> None:
    """A refused key is no reason to ask twice a second."""
    lane = Lane()

    lane.failed(FORBIDDEN, now=0.0, chance=chance)

    assert MAX_PAUSE / 2 <= lane.due_at <= MAX_PAUSE


@given(chance=chances)
def test_the_other_side_is_left_alone_as_long_as_it_asks(chance: float) -> None:
    """Also at exit, which hurries all others."""
    lane = Lane()

    lane.failed(Failure(Trouble.OUTAGE, "busy", retry_after=30.0), now=0.0, chance=chance)
    lane.hurry()

    assert lane.due_at >= 30.0


def test_single_event_is_tried_after_a_failure_and_batches_grow_again() -> None:
    """A full batch would arrive again and again while a broker confirms nothing."""
    lane = Lane()
    assert lane.limit == MAX_EVENTS
    lane.failed(OUTAGE, now=0.0, chance=0.5)

    sizes = [lane.limit]
    for _ in range(4):
        lane.succeeded()
        sizes.append(lane.limit)

    assert sizes == [1, 8, 64, MAX_EVENTS, MAX_EVENTS]
    assert (lane.failure, lane.due_at) == (None, 0.0)


def test_batch_that_is_too_large_is_halved_down_to_one() -> None:
    """Whatever was sent, not what could have been."""
    lane = Lane()

    lane.halve(9)
    first = lane.limit
    lane.halve(1)

    assert (first, lane.limit) == (4, 1)


def test_exit_tries_a_failed_type_once_more() -> None:
    """Its pause may be longer than the exit may take."""
    lane = Lane()
    lane.failed(FORBIDDEN, now=0.0, chance=0.5)

    lane.hurry()

    assert lane.due_at == 0.0
