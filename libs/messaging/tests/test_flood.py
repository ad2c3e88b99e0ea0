"""Floods of dead letters: what is one, what never is, and what of one is let through."""

from datetime import UTC, datetime
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_messaging.breaker import Breakers
from nexus_messaging.flood import Flood, FloodLimit, FloodWindow
from nexus_messaging.message import Delivery, Message
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Acknowledge, DeadLetter, Progress, Retry
from nexus_messaging.topology import EVENTS, RETRY_RETURN, TIERS, TOOL_EXECUTED_QUEUE

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OTHER_QUEUE = "usage-ingest.usage-outcomes"

limits = st.builds(FloodLimit, st.floats(0.1, 1), st.integers(10, 60))


def after(limit: FloodLimit, ends: list[bool]) -> FloodWindow:
    """Return the window after deliveries of which those that are true were dead-lettered."""
    window = FloodWindow(limit)
    for dead in ends:
        window = window.dead(Reason.UNREADABLE, None) if dead else window.done()
    return window


@given(limits, st.lists(st.booleans(), max_size=200))
def test_a_flood_is_more_than_the_share_of_the_last_ends(
    limit: FloodLimit, ends: list[bool]
) -> None:
    """Counted afresh from the last so many ends, whatever came before them."""
    dead = sum(ends[-limit.window :])

    flood = after(limit, ends).flood()

    assert (flood is not None) == (dead > limit.most)
    if flood is not None:
        assert flood == Flood(dead, min(len(ends), limit.window), Reason.UNREADABLE)


@given(limits, st.integers(0, 40), st.integers(0, 100), st.integers(0, 400))
def test_a_trickle_below_the_share_never_becomes_a_flood(
    limit: FloodLimit, rarer: int, first: int, ends: int
) -> None:
    """However long it goes on, one bad message in so many stops nothing."""
    every = ceil(limit.window / limit.most) + rarer
    window = FloodWindow(limit)

    for number in range(ends):
        bad = (number + first) % every == 0
        window = window.dead(Reason.INVALID, None) if bad else window.done()
        assert window.flood() is None


@given(limits, st.lists(st.booleans(), max_size=200))
def test_with_a_share_of_one_nothing_is_a_flood(limit: FloodLimit, ends: list[bool]) -> None:
    """The way to switch it off."""
    assert after(FloodLimit(1, limit.window), ends).flood() is None


@given(limits, st.integers(1, 5), st.integers(0, 500))
def test_few_customers_are_never_a_flood_by_themselves(
    limit: FloodLimit, customers: int, letters: int
) -> None:
    """A busy deleted customer has many refused reports, and everybody else's are still sent."""
    limit = FloodLimit(0.5, limit.window + 20)
    window = FloodWindow(limit)

    for number in range(letters):
        window = window.dead(Reason.NO_SUCH_CUSTOMER, f"cus_{number % customers}")

    assert window.flood() is None
    assert len(window.letters) <= customers * limit.most_of_one


def test_every_customer_missing_is_a_flood() -> None:
    """As with the key of a wrong account."""
    window = FloodWindow(FloodLimit(0.5, 100))

    for number in range(51):
        window = window.dead(Reason.NO_SUCH_CUSTOMER, f"cus_{number % 20}")

    assert window.flood() == Flood(51, 51, Reason.NO_SUCH_CUSTOMER)


def test_a_flood_names_its_leading_reason_and_no_customer() -> None:
    """What the log, the remark and the alert's section of the runbook go by."""
    window = FloodWindow(FloodLimit(0.1, 50))

    for number, reason in enumerate((Reason.UNREADABLE, *[Reason.INVALID] * 4, Reason.UNREADABLE)):
        window = window.dead(reason, f"cus_secret{number}")

    assert "cus_secret" not in repr(window)
    told = str(window.flood())
    assert told == "6 of the last 6 messages were dead-lettered, most of them as invalid"


def delivery(exchange: str = EVENTS, queue: str = TOOL_EXECUTED_QUEUE) -> Delivery:
    """Return a delivery that came so."""
    return Delivery(Message(b""), queue, exchange)


def letter(subject: str | None = None) -> DeadLetter:
    """Return the decision to dead-letter."""
    return DeadLetter(Reason.UNREADABLE, "", 1, NOW, subject)


def breakers(told: list[tuple[str, Flood | None]] | None = None) -> Breakers:
    """Return breakers that let five of the last ten be dead-lettered."""
    heard = [] if told is None else told
    return Breakers(FloodLimit(0.5, 10), lambda queue, flood: heard.append((queue, flood)))


async def test_no_dead_letter_passes_once_a_flood_is_known() -> None:
    """The one that shows it is the last; acks and retries of what is in hand still pass."""
    breaker = breakers().of(TOOL_EXECUTED_QUEUE)

    passed = [breaker.passes(delivery(), letter()) for _ in range(20)]

    assert passed == [True] * 6 + [False] * 14
    assert breaker.passes(delivery(), Acknowledge())
    assert breaker.passes(delivery(), Retry(TIERS[0], Progress()))


async def test_moved_dead_letters_that_are_still_wrong_stop_nothing() -> None:
    """They were dead letters before; nor do they make a queue look healthy."""
    breaker = breakers().of(TOOL_EXECUTED_QUEUE)

    assert all(breaker.passes(delivery(exchange=""), letter()) for _ in range(100))
    assert breaker.flood is None
    for _ in range(6):
        breaker.passes(delivery(), letter())
    assert breaker.flood is not None


async def test_retries_count_neither_way() -> None:
    """A message that is tried five times before it is dead is one dead letter, not a fifth."""
    breaker = breakers().of(TOOL_EXECUTED_QUEUE)

    for _ in range(6):
        for _ in range(4):
            breaker.passes(delivery(RETRY_RETURN), Retry(TIERS[0], Progress()))
        breaker.passes(delivery(RETRY_RETURN), letter())

    assert breaker.flood == Flood(6, 6, Reason.UNREADABLE)


async def test_a_flooded_queue_stops_alone_and_is_resumed_with_a_clean_slate() -> None:
    """Each queue is judged by itself; afterwards it takes as many again to stop it."""
    told: list[tuple[str, Flood | None]] = []
    both = breakers(told)
    flooded, other = both.of(TOOL_EXECUTED_QUEUE), both.of(OTHER_QUEUE)
    for _ in range(6):
        flooded.passes(delivery(), letter())
    flood = flooded.flood

    assert other.flood is None
    assert both.of(TOOL_EXECUTED_QUEUE) is flooded
    assert await both.remark() == f"{TOOL_EXECUTED_QUEUE} is stopped: {flood}"
    both.resume()
    await flooded.resumed()
    await other.resumed()

    assert told == [(TOOL_EXECUTED_QUEUE, flood), (TOOL_EXECUTED_QUEUE, None)]
    assert await both.remark() is None
    assert [flooded.passes(delivery(), letter()) for _ in range(7)] == [True] * 6 + [False]


def test_what_counts_in_a_window_is_bounded_by_it() -> None:
    """However long a process runs, the memory of one queue's past stays small."""
    window = after(FloodLimit(1, 100), [True, False] * 10_000)

    assert len(window.letters) == 50


@pytest.mark.parametrize(("share", "window", "most"), [(0.5, 1000, 500), (0.29, 100, 29)])
def test_the_limit_is_what_the_settings_say(share: float, window: int, most: int) -> None:
    """No dead letter more or less for the way binary fractions are written."""
    limit = FloodLimit(share, window)

    assert after(limit, [True] * most).flood() is None
    assert after(limit, [True] * (most + 1)).flood() is not None
