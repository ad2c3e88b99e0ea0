"""How long answers are kept, and when the API is asked again after failures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_publisher.entitlements.cache import Cache, Kept, fresh_seconds
from nexus_publisher.entitlements.circuit import (
    FAILURES_TO_OPEN,
    MAX_REQUESTS,
    MAX_WAIT,
    Circuit,
)
from nexus_publisher.entitlements.decision import Entitlement

ANSWER = Entitlement(
    user_id="a",
    plan="pro",
    denied=(),
    limits=(),
    rate_limits=(),
    as_of="2026-03-01T12:00:00Z",  # type: ignore[arg-type] # as it is written in an answer
)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("private, max-age=30", 30),
        ("max-age=0", 0),
        ("Max-Age=30,private", 30),
        ("s-maxage=30", 0),
        ("max-age=30, no-store", 0),
        ("no-cache,max-age=30", 0),
        ("max-age=-1", 0),
        ("max-age=soon", 0),
        ("max-age=99999999", 300),
        ("max-age=99999999999999999999", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_answer_is_fresh_as_long_as_the_api_says(header: str | None, seconds: float) -> None:
    """Five minutes at most."""
    assert fresh_seconds(header) == seconds


def test_cache_keeps_the_answers_that_were_fetched_last() -> None:
    """A full one drops the answer that was fetched longest ago."""
    cache = Cache(2)
    for user in ("a", "b", "a", "c"):
        cache.put(user, Kept(ANSWER, None, 0, 0))

    assert [cache.get(user) is not None for user in ("a", "b", "c")] == [True, False, True]
    assert len(cache) == 2


def test_cache_for_nobody_keeps_nothing() -> None:
    """Every call asks then."""
    cache = Cache(0)

    cache.put("a", Kept(ANSWER, None, 0, 0))

    assert len(cache) == 0


def test_single_failures_keep_nobody_from_asking() -> None:
    """One user whose answer always fails is not an outage."""
    circuit = Circuit()

    for _ in range(10):
        circuit.failed(1.0, chance=0.5)
        circuit.failed(1.0, chance=0.5)
        circuit.succeeded()

    assert circuit.may_ask(1.0, MAX_REQUESTS - 1)
    assert not circuit.may_ask(1.0, MAX_REQUESTS)


def test_failures_in_a_row_pause_and_then_one_request_tries() -> None:
    """Others get no answer at once meanwhile."""
    circuit = Circuit()
    for _ in range(FAILURES_TO_OPEN):
        circuit.failed(10.0, chance=0.5)

    assert not circuit.may_ask(10.0, 0)
    assert circuit.may_ask(circuit.open_until, 0)
    assert not circuit.may_ask(circuit.open_until, 1)
    circuit.succeeded()
    assert circuit.may_ask(10.0, 1)


def test_one_answer_that_asks_to_wait_is_enough_to_wait() -> None:
    """Such as a 429."""
    circuit = Circuit()

    circuit.failed(10.0, chance=0.0, retry_after=5.0)

    assert not circuit.may_ask(14.9, 0)
    assert circuit.may_ask(15.0, 0)


def test_failures_that_end_in_a_pause_do_not_lengthen_it() -> None:
    """A thousand requests that hang fail together: they are one outage."""
    circuit = Circuit()
    for _ in range(1000):
        circuit.failed(10.0, chance=0.0)

    assert circuit.failures == FAILURES_TO_OPEN


@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 3600))),
)
def test_pause_is_as_asked_and_otherwise_bounded(
    failures: list[tuple[float, float | None]],
) -> None:
    """``Retry-After`` is respected."""
    circuit, now = Circuit(), 0.0
    for chance, retry_after in failures:
        now = max(now, circuit.open_until)
        circuit.failed(now, chance=chance, retry_after=retry_after)
        pause = circuit.open_until - now
        assert not circuit.opened or pause >= min(retry_after or 0.0, MAX_WAIT) - 1e-6
        assert pause <= MAX_WAIT + 1e-6
