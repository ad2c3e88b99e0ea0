"""The circuit breaker in front of Stripe: what opens it, and how it closes again."""

from customer_provisioner.circuit import (
    FAILURE_THRESHOLD,
    FIRST_OPEN_SECONDS,
    MAX_OPEN_SECONDS,
    TRIAL_SECONDS,
    Cause,
    CircuitBreaker,
)


def unanswered(users: int = FAILURE_THRESHOLD) -> CircuitBreaker:
    """Return the breaker after calls for so many users got no response at time 0."""
    breaker = CircuitBreaker()
    for user in range(users):
        breaker = breaker.unanswered(str(user), 0.0)
    return breaker


def test_calls_of_several_users_without_response_open_it() -> None:
    """Fewer users do not open it, nor do many calls for one user."""
    one_user = CircuitBreaker()
    for _ in range(20):
        one_user = one_user.unanswered("one", 0.0)

    assert unanswered(FAILURE_THRESHOLD - 1).cause is None
    assert unanswered().cause is Cause.OUTAGE
    assert one_user.cause is None


def test_a_response_resets_the_count_of_users() -> None:
    """In an outage no user gets a response."""
    answered = unanswered(FAILURE_THRESHOLD - 1).answered()

    assert answered.unanswered("last", 0.0).cause is None


def test_a_refused_key_opens_it_at_once() -> None:
    """All users share the key."""
    refused = CircuitBreaker().key_refused(0.0)

    assert refused.cause is Cause.KEY
    assert refused.rejects(FIRST_OPEN_SECONDS - 0.1)
    assert not refused.rejects(FIRST_OPEN_SECONDS)


def test_one_trial_call_is_let_through_and_closes_it() -> None:
    """Other calls wait for it, at most as long as a call may take."""
    trying = unanswered().called(FIRST_OPEN_SECONDS)

    assert trying.rejects(FIRST_OPEN_SECONDS)
    assert not trying.rejects(FIRST_OPEN_SECONDS + TRIAL_SECONDS)
    assert trying.answered() == CircuitBreaker()


def test_the_time_it_stays_open_doubles_with_each_failed_trial() -> None:
    """A long outage costs few calls."""
    breaker, now, pauses = unanswered(), 0.0, []
    for _ in range(6):
        pauses.append(breaker.trial_from - now)
        now = breaker.trial_from
        breaker = breaker.called(now).unanswered("x", now)

    assert pauses == [FIRST_OPEN_SECONDS, 10.0, 20.0, 40.0, MAX_OPEN_SECONDS, MAX_OPEN_SECONDS]


def test_calls_in_progress_when_it_opens_do_not_prolong_it() -> None:
    """Twenty calls that fail together count once, also after a failed trial."""
    opened = unanswered()
    again = opened.called(FIRST_OPEN_SECONDS).unanswered("trial", FIRST_OPEN_SECONDS)

    assert opened.unanswered("late", 1.0).trial_from == opened.trial_from
    assert again.unanswered("late", FIRST_OPEN_SECONDS + 1.0).trial_from == again.trial_from


def test_a_key_refused_after_an_outage_is_tried_again_soon() -> None:
    """A refusal is a response: the outage's backoff starts anew."""
    breaker, now = unanswered(), 0.0
    for _ in range(4):
        now = breaker.trial_from
        breaker = breaker.called(now).unanswered("x", now)
    now = breaker.trial_from

    refused = breaker.called(now).key_refused(now)

    assert refused.cause is Cause.KEY
    assert refused.trial_from == now + FIRST_OPEN_SECONDS
