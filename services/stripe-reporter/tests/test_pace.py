"""How fast Stripe is called."""

from hypothesis import given
from hypothesis import strategies as st

from stripe_reporter.pace import BURST_SECONDS, RECOVERY_SECONDS, Pace


@given(
    st.floats(1.0, 1000.0),
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=40),
    st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_it_never_exceeds_the_ceiling(rate: float, pauses: list[float], slow: list[bool]) -> None:
    """In any stretch of time there are at most rate x (stretch + burst) + 1 calls."""
    now, pace, calls = 0.0, Pace.at(rate, 0.0), []
    for pause, slowed in zip(pauses, slow, strict=False):
        now += pause
        pace = pace.slowed(now) if slowed else pace
        pace, wait = pace.taken(now)
        now += wait
        calls.append(now)

    for first, start in enumerate(calls):
        made = range(1, len(calls) - first + 1)
        for count, end in zip(made, calls[first:], strict=True):
            assert count <= rate * (end - start + BURST_SECONDS) + 1 + 1e-6


def test_a_429_halves_it_and_it_recovers_within_a_minute() -> None:
    """It comes back slowly, not at once into the next 429."""
    pace = Pace.at(100.0, 0.0).slowed(10.0)

    assert pace.rate(10.0) == 50.0
    assert 50.0 < pace.rate(11.0) < 55.0
    assert pace.rate(10.0 + RECOVERY_SECONDS) == 100.0


def test_the_429s_of_one_moment_halve_it_once() -> None:
    """Calls under way together are refused together."""
    pace = Pace.at(100.0, 0.0)
    for _ in range(20):
        pace = pace.slowed(10.0)

    assert pace.rate(10.0) == 50.0


@given(st.lists(st.floats(1.0, 5.0), max_size=100))
def test_it_never_stops(pauses: list[float]) -> None:
    """However many 429s, one call a second is left."""
    now, pace = 0.0, Pace.at(100.0, 0.0)
    for pause in pauses:
        now += pause
        pace = pace.slowed(now)

    assert pace.rate(now) >= 1.0
