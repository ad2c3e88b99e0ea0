"""Whether a queue is being emptied into its dead-letter queue: a pure decision over values.

Only ends count: a delivery that was processed or dead-lettered. Retries don't, or a message that is
tried five times would count four times as healthy. Nor does a message that an operator moved: it
was a dead letter before, so one that is still wrong adds none.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import floor
from typing import Final

from nexus_messaging.reasons import Reason

ONE_IN: Final = 10
"""One subject makes up at most this part of a flood."""


@dataclass(frozen=True, slots=True)
class FloodLimit:
    """More dead letters than ``share`` of the last ``window`` ends are a flood; with 1 none is."""

    share: float = 0.5
    window: int = 1000

    @property
    def most(self) -> int:
        """How many dead letters the window may hold."""
        return floor(round(self.share * self.window, 6))  # 0.29 times 100 is a little below 29

    @property
    def most_of_one(self) -> int:
        """How many of them count for one subject: a busy deleted customer is no flood."""
        return max(1, self.most // ONE_IN)


@dataclass(frozen=True, slots=True)
class Flood:
    """Why a queue is not consumed any more."""

    dead: int
    window: int
    reason: Reason

    def __str__(self) -> str:
        """Say it to an operator."""
        return (
            f"{self.dead} of the last {self.window} messages were dead-lettered,"
            f" most of them as {self.reason.value}"
        )


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter in the window: the how-manieth end it was, why, and of whom."""

    place: int
    reason: Reason
    subject: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class FloodWindow:
    """The last ends of one queue's deliveries. ``letters`` are the dead ones, oldest first."""

    limit: FloodLimit
    ended: int = 0
    letters: tuple[Letter, ...] = ()

    def done(self) -> "FloodWindow":
        """Return the window after a delivery that was processed."""
        return self._after(self.letters)

    def dead(self, reason: Reason, subject: str | None) -> "FloodWindow":
        """Return the window after a dead letter.

        ``subject`` is the one party whose fault it is, if it is known. What it has beyond
        ``most_of_one`` is not counted at all: neither for the flood nor against it.
        """
        if subject is not None:
            same = sum(letter.subject == subject for letter in self.letters)
            if same >= self.limit.most_of_one:
                return self
        return self._after((*self.letters, Letter(self.ended, reason, subject)))

    def flood(self) -> Flood | None:
        """Return what the window amounts to, if that is a flood."""
        if len(self.letters) <= self.limit.most:
            return None
        [(reason, _)] = Counter(letter.reason for letter in self.letters).most_common(1)
        return Flood(len(self.letters), min(self.ended, self.limit.window), reason)

    def _after(self, letters: tuple[Letter, ...]) -> "FloodWindow":
        ended = self.ended + 1
        if letters and letters[0].place < ended - self.limit.window:
            letters = letters[1:]
        return replace(self, ended=ended, letters=letters)
