"""What shuts the gate and what opens it again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_stripe.answers import Answer, Receipt
from stripe_reporter.gate import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    UNKNOWN_RUNNING,
    Gate,
    GateShutError,
    GateState,
)
from stripe_reporter.meanings import TABLE, Cause, Meaning

METERS = frozenset({"runs", "tokens"})
FINE = Answer(Receipt.ANSWERED, status=200)


def meaning(name: str) -> Meaning:
    """Return a row of the table."""
    return next(row for row in TABLE if row.name == name)


def after(*answers: tuple[str, str, str], state: GateState | None = None) -> GateState:
    """Return the gate after answers, each a meaning for an identifier and a meter."""
    state = state or GateState(METERS)
    for name, identifier, meter in answers:
        state = state.after(meaning(name), identifier, meter, now=0.0)
    return state


def silence(count: int) -> list[tuple[str, str, str]]:
    """Return that many different reports without an answer."""
    return [("lost", f"r-{n}", "runs") for n in range(count)]


def test_one_refused_key_shuts_it() -> None:
    """A 401 or 403 means that no other report would fare better."""
    assert after(("unauthorized", "r-1", "runs")).cause is Cause.AUTH
    assert after(("forbidden", "r-1", "runs")).cause is Cause.AUTH


def test_five_silent_reports_in_a_row_shut_it() -> None:
    """Fewer may be chance, and an answer in between starts the count anew."""
    assert after(*silence(UNKNOWN_RUNNING - 1)).cause is None
    assert after(*silence(UNKNOWN_RUNNING)).cause is Cause.OUTAGE
    broken = [*silence(UNKNOWN_RUNNING - 1), ("accepted", "r-9", "runs"), ("lost", "r-5", "runs")]
    assert after(*broken).cause is None


def test_one_report_that_always_fails_is_no_outage() -> None:
    """Only different reports count: a single poisonous one must not stop the others."""
    assert after(*[("server_error", "r-1", "runs")] * 50).cause is None


def test_it_shuts_only_when_every_meter_is_missing() -> None:
    """One missing meter of two holds up only its own reports."""
    one = after(("no_meter", "r-1", "runs"))
    assert one.cause is None
    assert after(("no_meter", "r-2", "tokens"), state=one).cause is Cause.METER
    back = after(("accepted", "r-3", "runs"), ("no_meter", "r-2", "tokens"), state=one)
    assert back.cause is None


def test_on_trial_one_silent_report_shuts_it_again() -> None:
    """After an outage a single call is risked, not five."""
    trial = after(*silence(5)).probed(FINE, METERS)

    assert trial.cause is None
    assert trial.trial
    assert after(("lost", "r-8", "runs"), state=trial).cause is Cause.OUTAGE


def test_an_answer_on_trial_ends_the_trial() -> None:
    """Stripe works again: full speed."""
    trial = after(*silence(5)).probed(FINE, METERS)

    assert after(("accepted", "r-8", "runs"), state=trial) == GateState(METERS, probe_from=2.0)


def test_trials_that_fail_are_made_ever_more_rarely() -> None:
    """The pause before the next probe doubles up to its limit, until Stripe works."""
    state, pauses = GateState(METERS), []
    for _ in range(12):
        state = after(*silence(5), state=state)
        pauses.append(state.probe_from)
        state = state.probed(FINE, METERS)

    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE


def test_a_probe_opens_it_only_if_its_cause_is_gone() -> None:
    """A refused key stays shut on 401, a missing meter until one is listed."""
    auth = after(("unauthorized", "r-1", "runs"))
    meter = after(("no_meter", "r-1", "runs"), ("no_meter", "r-2", "tokens"))

    assert auth.probed(Answer(Receipt.ANSWERED, status=401), METERS).cause is Cause.AUTH
    assert auth.probed(Answer(Receipt.LOST), METERS).cause is Cause.AUTH
    assert auth.probed(FINE, METERS).cause is None
    assert meter.probed(FINE, frozenset({"other"})).cause is Cause.METER
    assert meter.probed(FINE, frozenset({"runs"})).cause is None


def test_meter_that_stays_missing_does_not_shut_it_again_once_the_other_is_there() -> None:
    """The probe found one of two: what was missing before it is forgotten."""
    both = after(("no_meter", "r-1", "runs"), ("no_meter", "r-2", "tokens"))

    opened = both.probed(FINE, frozenset({"runs"}))

    assert after(("no_meter", "r-2", "tokens"), state=opened).cause is None


def test_a_key_that_may_not_read_meters_is_tried_all_the_same() -> None:
    """A restricted key may write events without the right to list meters."""
    forbidden = Answer(Receipt.ANSWERED, status=403)

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
def test_nothing_but_a_probe_opens_it(answers: list[tuple[str, str, str]]) -> None:
    """Late answers of calls that were under way change nothing: the first cause stands."""
    state, cause = GateState(METERS), None
    for answer in answers:
        state = after(answer, state=state)
        assert cause is None or state.cause is cause
        cause = state.cause


async def test_stripe_is_probed_after_the_pause_and_not_before() -> None:
    """However often the consumption asks: an outage costs few calls."""
    times, probed_at = [0.0], list[float]()

    async def probe() -> tuple[Answer, frozenset[str]]:
        probed_at.append(times[-1])
        return FINE, METERS

    gate = Gate(METERS, probe, clock=lambda: times[-1], changed=lambda _cause: None)
    gate.note(meaning("unauthorized"), "r-1", "runs")
    for early in (0.0, FIRST_PAUSE / 2):
        times.append(early)
        with pytest.raises(GateShutError):
            await gate.probe()
    times.append(FIRST_PAUSE)
    await gate.probe()

    assert probed_at == [FIRST_PAUSE]
    assert gate.cause is None
