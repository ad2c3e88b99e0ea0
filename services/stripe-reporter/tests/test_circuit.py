"""What opens the circuit and what closes it again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_stripe.answers import Receipt, StripeAnswer
from stripe_reporter.circuit import (
    FAILURE_THRESHOLD,
    FIRST_OPEN_SECONDS,
    MAX_OPEN_SECONDS,
    Cause,
    Circuit,
    CircuitBreaker,
    CircuitOpenError,
)
from stripe_reporter.stripe.responses import TABLE

METERS = frozenset({"runs", "tokens"})
FINE = StripeAnswer(Receipt.ANSWERED, status=200)


def sign(name: str) -> Cause | None:
    """Return the cause that the answer ``name`` is a sign of."""
    return next(row.opens for row in TABLE if row.name == name)


def after(*answers: tuple[str, str, str], state: Circuit | None = None) -> Circuit:
    """Return the circuit after answers, each for an identifier and a meter."""
    state = state or Circuit(METERS)
    for name, identifier, meter in answers:
        state = state.after(sign(name), identifier, meter, now=0.0)
    return state


def unanswered(count: int) -> list[tuple[str, str, str]]:
    """Return that many different reports without an answer."""
    return [("lost", f"r-{n}", "runs") for n in range(count)]


def test_a_refused_key_opens_it_at_once() -> None:
    """After a 401 or 403 no other report would get through."""
    assert after(("unauthorized", "r-1", "runs")).cause is Cause.KEY
    assert after(("forbidden", "r-1", "runs")).cause is Cause.KEY


def test_five_unanswered_reports_in_a_row_open_it() -> None:
    """Fewer may be chance, and an answer in between starts the count anew."""
    assert after(*unanswered(FAILURE_THRESHOLD - 1)).cause is None
    assert after(*unanswered(FAILURE_THRESHOLD)).cause is Cause.OUTAGE
    broken = [
        *unanswered(FAILURE_THRESHOLD - 1),
        ("accepted", "r-9", "runs"),
        ("lost", "r-5", "runs"),
    ]
    assert after(*broken).cause is None


def test_one_report_that_always_fails_is_no_outage() -> None:
    """Only different reports count: a single poisonous one must not stop the others."""
    assert after(*[("server_error", "r-1", "runs")] * 50).cause is None


def test_it_opens_only_when_every_meter_is_missing() -> None:
    """One missing meter of two holds up only its own reports."""
    one = after(("no_meter", "r-1", "runs"))
    assert one.cause is None
    assert after(("no_meter", "r-2", "tokens"), state=one).cause is Cause.METER
    back = after(("accepted", "r-3", "runs"), ("no_meter", "r-2", "tokens"), state=one)
    assert back.cause is None


def test_half_open_it_opens_at_one_unanswered_report() -> None:
    """After an outage a single call is risked, not five."""
    trial = after(*unanswered(5)).probed(FINE, METERS)

    assert trial.cause is None
    assert trial.trial
    assert after(("lost", "r-8", "runs"), state=trial).cause is Cause.OUTAGE


def test_half_open_it_closes_at_an_answer() -> None:
    """The next outage takes five unanswered reports again."""
    trial = after(*unanswered(5)).probed(FINE, METERS)

    assert after(("accepted", "r-8", "runs"), state=trial) == Circuit(METERS, probe_from=2.0)


def test_the_pause_doubles_while_trials_fail() -> None:
    """Before the next probe, up to its limit."""
    state, pauses = Circuit(METERS), []
    for _ in range(12):
        state = after(*unanswered(5), state=state)
        pauses.append(state.probe_from)
        state = state.probed(FINE, METERS)

    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_OPEN_SECONDS


def test_a_probe_closes_it_only_if_its_cause_is_gone() -> None:
    """For a refused key not at a 401, for missing meters not until one is listed."""
    auth = after(("unauthorized", "r-1", "runs"))
    meter = after(("no_meter", "r-1", "runs"), ("no_meter", "r-2", "tokens"))

    assert auth.probed(StripeAnswer(Receipt.ANSWERED, status=401), METERS).cause is Cause.KEY
    assert auth.probed(StripeAnswer(Receipt.LOST), METERS).cause is Cause.KEY
    assert auth.probed(FINE, METERS).cause is None
    assert meter.probed(FINE, frozenset({"other"})).cause is Cause.METER
    assert meter.probed(FINE, frozenset({"runs"})).cause is None


def test_a_meter_still_missing_does_not_open_it_if_the_other_is_there() -> None:
    """The probe found one of two: what was missing before it is forgotten."""
    both = after(("no_meter", "r-1", "runs"), ("no_meter", "r-2", "tokens"))

    half_open = both.probed(FINE, frozenset({"runs"}))

    assert after(("no_meter", "r-2", "tokens"), state=half_open).cause is None


def test_a_key_that_may_not_list_meters_is_tried() -> None:
    """A restricted key may write events without the right to list meters."""
    forbidden = StripeAnswer(Receipt.ANSWERED, status=403)

    assert after(("forbidden", "r-1", "runs")).probed(forbidden, frozenset()).cause is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([row.name for row in TABLE]),
            st.sampled_from(["r-1", "r-2", "r-3", "r-4", "r-5", "r-6"]),
            st.sampled_from(["runs", "tokens"]),
        )
    )
)
def test_only_a_probe_closes_it(answers: list[tuple[str, str, str]]) -> None:
    """Late answers to calls that were under way change nothing: the first cause stays."""
    state, cause = Circuit(METERS), None
    for answer in answers:
        state = after(answer, state=state)
        assert cause is None or state.cause is cause
        cause = state.cause


async def test_stripe_is_probed_after_the_pause_and_not_before() -> None:
    """However often the consumption asks, an outage costs few calls."""
    times, probed_at = [0.0], list[float]()

    async def probe() -> tuple[StripeAnswer, frozenset[str]]:
        probed_at.append(times[-1])
        return FINE, METERS

    breaker = CircuitBreaker(METERS, probe, clock=lambda: times[-1], changed=lambda _cause: None)
    breaker.note(sign("unauthorized"), "r-1", "runs")
    for early in (0.0, FIRST_OPEN_SECONDS / 2):
        times.append(early)
        with pytest.raises(CircuitOpenError):
            await breaker.probe()
    times.append(FIRST_OPEN_SECONDS)
    await breaker.probe()

    assert probed_at == [FIRST_OPEN_SECONDS]
    assert breaker.cause is None
