"""The circuit breaker in front of Stripe: whether a call may be made at all, as values.

Without it each user would spend ten seconds, a transaction and a longer retry wait on an outage
that has nothing to do with that user.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nexus_messaging.backoff import pause_after

FAILURE_THRESHOLD: Final = 5
"""Different users in a row without a response from Stripe that open the breaker. One user alone
never opens it: the cause may be that user's data."""

FIRST_OPEN_SECONDS: Final = 5.0
MAX_OPEN_SECONDS: Final = 60.0
"""Seconds without calls. They double with each failed trial call, up to the maximum."""

TRIAL_SECONDS: Final = 15.0
"""Seconds until a trial call counts as abandoned. A call times out after ten."""


class CircuitOpenError(Exception):
    """Stripe is not called now, for a reason that concerns every user."""


class StripeKeyRefusedError(CircuitOpenError):
    """Stripe refuses the API key: no user gets a customer until the key is replaced."""


class StripeUnavailableError(CircuitOpenError):
    """Calls for several users in a row got no response from Stripe."""


class Cause(StrEnum):
    """What opened the circuit breaker."""

    KEY = "key"
    """Stripe refuses the key."""
    OUTAGE = "outage"
    """Stripe does not respond."""


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Closed (``cause`` is None), open until ``trial_from``, then half-open: one trial call.

    Times are seconds of one monotonic clock.

    Attributes:
        cause: Why the breaker is open or half-open.
        failed_users: Users whose calls since Stripe's last response got none.
        openings: How often it opened since Stripe's last response.
        trial_from: From when on a trial call may be made.
        trial: Whether a trial call is in progress.
    """

    cause: Cause | None = None
    failed_users: frozenset[str] = frozenset()
    openings: int = 0
    trial_from: float = 0.0
    trial: bool = False

    def rejects(self, now: float) -> bool:
        """Return whether no call may be made at ``now``."""
        return self.cause is not None and now < self.trial_from

    def called(self, now: float) -> "CircuitBreaker":
        """Return the breaker after a call was let through: only one trial call at a time."""
        if self.cause is None:
            return self
        return replace(self, trial=True, trial_from=now + TRIAL_SECONDS)

    def answered(self) -> "CircuitBreaker":
        """Return the breaker after any response from Stripe except a refusal of the key."""
        return CircuitBreaker()

    def unanswered(self, user: str, now: float) -> "CircuitBreaker":
        """Return the breaker after a call for ``user`` got no response from Stripe."""
        counted = replace(self, failed_users=self.failed_users | {user})
        if self.trial or len(counted.failed_users) >= FAILURE_THRESHOLD:
            return counted.opened(Cause.OUTAGE, now)
        return counted

    def key_refused(self, now: float) -> "CircuitBreaker":
        """Return the breaker after Stripe refused the key, which opens it at once.

        A refusal is a response: the backoff of an outage before it does not go on.
        """
        return replace(self, openings=0).opened(Cause.KEY, now)

    def opened(self, cause: Cause, now: float) -> "CircuitBreaker":
        """Return the breaker opened; unchanged if it is open already and no trial call ran.

        Calls that were in progress when it opened do not prolong the time it stays open.
        """
        if self.cause is not None and not self.trial:
            return self
        seconds = pause_after(self.openings, FIRST_OPEN_SECONDS, MAX_OPEN_SECONDS)
        return replace(
            self,
            cause=cause,
            openings=self.openings + 1,
            trial_from=now + seconds,
            trial=False,
        )
