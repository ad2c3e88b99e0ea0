"""When and how much to send next of one type of event: pure, the clock and chance passed in.

Each type has a lane of its own: a type that the key or the broker's user may not publish does not
hold up the others.
"""

from dataclasses import dataclass
from typing import Final

from nexus_publisher.answers import Failure, Trouble

MAX_EVENTS: Final = 500
"""Events of a batch; the API takes 1,000 of them."""

FIRST_PAUSE: Final = 0.5
MAX_PAUSE: Final = 60.0
"""Seconds. Each pause is a random part of a limit, which doubles from the first to the longest."""

MAX_DOUBLINGS: Final = 64
"""No pause is worth more of them, and a float holds 1,023."""

GROWTH: Final = 8


@dataclass(slots=True)
class Lane:
    """The state of one type: ``limit`` is the number of events of its next batch."""

    limit: int = MAX_EVENTS
    due_at: float = 0.0
    failures: int = 0
    failure: Failure | None = None

    def succeeded(self) -> None:
        """Note that a batch was answered: the next follows at once, and larger."""
        self.failures, self.failure, self.due_at = 0, None, 0.0
        self.limit = min(self.limit * GROWTH, MAX_EVENTS)

    def halve(self, sent: int) -> None:
        """Note that a batch of ``sent`` events was too large: the next has half of them."""
        self.limit = max(1, sent // 2)

    def failed(self, failure: Failure, *, now: float, chance: float) -> None:
        """Note a failure: the next batch is one event, after a pause.

        ``chance`` is a random number in [0, 1). A single event tries whether the other side is
        back; a full batch would arrive again and again during an alarm of the broker.
        """
        self.failure, self.limit = failure, 1
        if failure.trouble is Trouble.CONFIGURATION:
            pause = MAX_PAUSE * (1 + chance) / 2
        else:
            doubled = FIRST_PAUSE * 2.0 ** min(self.failures, MAX_DOUBLINGS)
            pause = min(doubled, MAX_PAUSE) * chance
        self.failures += 1
        if failure.retry_after is not None:
            pause += failure.retry_after
        self.due_at = now + pause

    def hurry(self) -> None:
        """Make the next batch due now, unless the other side asked to wait."""
        if self.failure is not None and self.failure.retry_after is None:
            self.due_at = 0.0
