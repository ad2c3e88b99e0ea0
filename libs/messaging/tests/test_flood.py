"""The limit that makes dead letters a flood."""

from datetime import UTC, datetime
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.flood import DeadLetterCause, Flood, FloodLimit, FloodWindow
from nexus_messaging.reasons import Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

limits = st.builds(FloodLimit, st.floats(0.1, 1), st.integers(10, 60))


def after(limit: FloodLimit, ends: list[bool]) -> FloodWindow:
    """Return the window after deliveries of which those that are true were dead-lettered."""
    window = FloodWindow(limit)
    for dead in ends:
        if dead:
            window.count_dead_letter(DeadLetterCause(Reason.UNREADABLE))
        else:
            window.count_processed()
    return window


@given(limits, st.lists(st.booleans(), max_size=200))
def test_a_flood_is_more_than_the_share_of_the_last_ends(
    limit: FloodLimit, ends: list[bool]
) -> None:
    """Only the last ``window`` results count."""
    dead = sum(ends[-limit.window :])

    flood = after(limit, ends).flood()

    assert (flood is not None) == (dead > limit.max_dead_letters)
    if flood is not None:
        assert flood == Flood(dead, min(len(ends), limit.window), Reason.UNREADABLE)


@given(limits, st.lists(st.booleans(), max_size=60), st.integers(0, 100))
def test_messages_processed_together_count_one_by_one(
    limit: FloodLimit, ends: list[bool], processed: int
) -> None:
    """The same dead letters leave the window."""
    singly, together = after(limit, [*ends, *(False for _ in range(processed))]), after(limit, ends)

    together.count_processed(processed)

    assert together.letters == singly.letters
    assert together.flood() == singly.flood()


@given(limits, st.integers(0, 40), st.integers(0, 100), st.integers(0, 400))
def test_a_trickle_below_the_share_never_becomes_a_flood(
    limit: FloodLimit, rarer: int, first: int, ends: int
) -> None:
    """However long it goes on, one bad message in so many stops nothing."""
    every = ceil(limit.window / limit.max_dead_letters) + rarer
    window = FloodWindow(limit)

    for number in range(ends):
        if (number + first) % every == 0:
            window.count_dead_letter(DeadLetterCause(Reason.INVALID))
        else:
            window.count_processed()
        assert window.flood() is None


@given(limits, st.lists(st.booleans(), max_size=200))
def test_with_a_share_of_one_nothing_is_a_flood(limit: FloodLimit, ends: list[bool]) -> None:
    """The way to switch it off."""
    assert after(FloodLimit(1, limit.window), ends).flood() is None


@given(limits, st.integers(1, 5), st.integers(0, 500))
def test_few_customers_are_never_a_flood_by_themselves(
    limit: FloodLimit, customers: int, letters: int
) -> None:
    """A busy deleted customer has many refused reports; reports of others are still sent."""
    limit = FloodLimit(0.5, limit.window + 20)
    window = FloodWindow(limit)

    for number in range(letters):
        window.count_dead_letter(
            DeadLetterCause(Reason.NO_SUCH_CUSTOMER, f"cus_{number % customers}")
        )

    assert window.flood() is None
    assert len(window.letters) <= customers * limit.max_per_subject


def test_every_customer_missing_is_a_flood() -> None:
    """This happens with the key of a wrong account."""
    window = FloodWindow(FloodLimit(0.5, 100))

    for number in range(51):
        window.count_dead_letter(DeadLetterCause(Reason.NO_SUCH_CUSTOMER, f"cus_{number % 20}"))

    assert window.flood() == Flood(51, 51, Reason.NO_SUCH_CUSTOMER)


def test_a_flood_names_its_leading_reason_and_no_customer() -> None:
    """The log, the remark and the runbook use the reason."""
    window = FloodWindow(FloodLimit(0.1, 50))

    for number, reason in enumerate((Reason.UNREADABLE, *[Reason.INVALID] * 4, Reason.UNREADABLE)):
        window.count_dead_letter(DeadLetterCause(reason, f"cus_secret{number}", "a source"))

    assert "cus_secret" not in repr(window.letters)
    text = str(window.flood())
    assert text == "6 of the last 6 messages were dead-lettered, most of them as invalid"


@pytest.mark.parametrize(("share", "window", "most"), [(0.5, 1000, 500), (0.29, 100, 29)])
def test_limit_is_exact_for_decimal_shares(share: float, window: int, most: int) -> None:
    """No dead letter more or less for the way binary fractions are written."""
    limit = FloodLimit(share, window)

    assert after(limit, [True] * most).flood() is None
    assert after(limit, [True] * (most + 1)).flood() is not None


def test_dead_letters_kept_are_bounded_by_the_window() -> None:
    """The memory of a window does not grow with the runtime of the process."""
    window = after(FloodLimit(1, 100), [True, False] * 10_000)

    assert len(window.letters) == 50
