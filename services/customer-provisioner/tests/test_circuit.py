"""When Stripe is not called at all, and how that ends."""

from customer_provisioner.circuit import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    OUTAGE_FROM,
    TRIAL_LASTS,
    Cause,
    Circuit,
)


def silenced(users: int = OUTAGE_FROM) -> Circuit:
    """Return the circuit after so many users got no answer at time 0."""
    circuit = Circuit()
    for user in range(users):
        circuit = circuit.unanswered(str(user), 0.0)
    return circuit


def test_silence_for_several_users_opens_the_circuit() -> None:
    """Not for fewer, and not for one user however often."""
    again = Circuit()
    for _ in range(20):
        again = again.unanswered("one", 0.0)

    assert silenced(OUTAGE_FROM - 1).cause is None
    assert silenced().cause is Cause.OUTAGE
    assert again.cause is None


def test_an_answer_in_between_begins_the_count_anew() -> None:
    """An outage is silence for everybody."""
    heard = silenced(OUTAGE_FROM - 1).answered()

    assert heard.unanswered("last", 0.0).cause is None


def test_a_refused_key_opens_the_circuit_at_once() -> None:
    """It is everybody's key."""
    refused = Circuit().refused(0.0)

    assert refused.cause is Cause.KEY
    assert refused.blocks(FIRST_PAUSE - 0.1)
    assert not refused.blocks(FIRST_PAUSE)


def test_after_the_pause_one_call_tries_and_closes_the_circuit() -> None:
    """Others wait for it, at most as long as a call may take."""
    trying = silenced().called(FIRST_PAUSE)

    assert trying.blocks(FIRST_PAUSE)
    assert not trying.blocks(FIRST_PAUSE + TRIAL_LASTS)
    assert trying.answered() == Circuit()


def test_the_pause_doubles_while_trials_fail() -> None:
    """A long outage costs few calls."""
    circuit, now, pauses = silenced(), 0.0, []
    for _ in range(6):
        pauses.append(circuit.trial_from - now)
        now = circuit.trial_from
        circuit = circuit.called(now).unanswered("x", now)

    assert pauses == [FIRST_PAUSE, 10.0, 20.0, 40.0, LONGEST_PAUSE, LONGEST_PAUSE]


def test_calls_under_way_when_it_opens_prolong_no_pause() -> None:
    """Twenty calls that fail together are one sign, also after a trial that failed."""
    opened = silenced()
    again = opened.called(FIRST_PAUSE).unanswered("trial", FIRST_PAUSE)

    assert opened.unanswered("late", 1.0).trial_from == opened.trial_from
    assert again.unanswered("late", FIRST_PAUSE + 1.0).trial_from == again.trial_from


def test_a_key_refused_after_a_long_outage_is_tried_again_soon() -> None:
    """A refusal is an answer: the outage's pauses, doubled again and again, are over."""
    circuit, now = silenced(), 0.0
    for _ in range(4):
        now = circuit.trial_from
        circuit = circuit.called(now).unanswered("x", now)
    now = circuit.trial_from

    refused = circuit.called(now).refused(now)

    assert refused.cause is Cause.KEY
    assert refused.trial_from == now + FIRST_PAUSE
