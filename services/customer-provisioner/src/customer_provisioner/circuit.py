"""The circuit breaker in front of Stripe: whether a call may be made at all, as values.

Without it each user would spend ten seconds, a transaction and a longer wait on an outage that has
nothing to do with the user.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

OUTAGE_FROM: Final = 5
"""From so many different users in a row without an answer of Stripe's, it is an outage."""

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 60.0
"""Seconds without calls. The pause doubles while trials fail, up to the longest."""

TRIAL_LASTS: Final = 15.0
"""Seconds that a trial may take: a call is given up after ten."""


class Cause(StrEnum):
    """What opens the circuit."""

    KEY = "key"
    """Stripe refuses the key."""
    OUTAGE = "outage"
    """Nobody gets an answer of Stripe's."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """Closed (``cause`` is None), open until ``trial_from``, then half-open: one call tries.

    ``waiting`` are the users whose calls since Stripe's last answer brought none; ``openings``
    counts since then. Times are seconds of one monotonic clock.
    """

    cause: Cause | None = None
    waiting: frozenset[str] = frozenset()
    openings: int = 0
    trial_from: float = 0.0
    trial: bool = False

    def blocks(self, now: float) -> bool:
        """Whether no call may be made at ``now``."""
        return self.cause is not None and now < self.trial_from

    def called(self, now: float) -> "Circuit":
        """Return the circuit once a call was let through: of a trial there is one at a time."""
        if self.cause is None:
            return self
        return replace(self, trial=True, trial_from=now + TRIAL_LASTS)

    def answered(self) -> "Circuit":
        """Return the circuit after any answer of Stripe's but a refusal of the key."""
        return Circuit()

    def unanswered(self, user: str, now: float) -> "Circuit":
        """Return the circuit after a call for ``user`` brought no answer of Stripe's."""
        noted = replace(self, waiting=self.waiting | {user})
        enough = self.trial or len(noted.waiting) >= OUTAGE_FROM
        return noted.opened(Cause.OUTAGE, now) if enough else noted

    def refused(self, now: float) -> "Circuit":
        """Return the circuit after Stripe refused the key: at once, as it is everybody's."""
        return replace(self, openings=0).opened(Cause.KEY, now)

    def opened(self, cause: Cause, now: float) -> "Circuit":
        """Return the circuit opened for a pause, or as it is if that is open and no trial ran."""
        if self.cause is not None and not self.trial:
            return self  # by a call that was under way when it opened
        pause = min(FIRST_PAUSE * 2**self.openings, LONGEST_PAUSE)
        opened = replace(self, cause=cause, openings=self.openings + 1)
        return replace(opened, trial_from=now + pause, trial=False)
