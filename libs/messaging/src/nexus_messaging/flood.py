"""Whether messages are being emptied into a dead-letter queue: a decision over values, without I/O.

Only ends count: a delivery that was processed or dead-lettered. Retries don't, or a message that is
tried five times would count four times as healthy. Nor does a message that an operator moved: it
was a dead letter before, so one that is still wrong adds none.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from math import floor
from typing import Final

from nexus_messaging.reasons import Reason

ONE_IN: Final = 10
"""One subject makes up at most this part of a flood."""

ONE_SOURCE_IN: Final = 100
LEAST_OF_SOURCE: Final = 2
"""A source takes part in a queue's flood with this part of the flood's dead letters, and with at
least so many: one bad message says nothing of its publisher."""


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

    @property
    def least_of_source(self) -> int:
        """How many dead letters make a source take part in the flood of a whole queue."""
        return max(LEAST_OF_SOURCE, self.most // ONE_SOURCE_IN)


@dataclass(frozen=True, slots=True)
class Flood:
    """Why a queue is not consumed any more, or dead letters of a source are held back."""

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
    """A dead letter: why, whose fault it is, and who published it; ``None`` where nobody knows."""

    reason: Reason
    subject: str | None = field(default=None, repr=False)
    source: str | None = field(default=None, repr=False)


class FloodWindow:
    """The last ends of a queue's deliveries, or of one source's among them.

    It is asked for every message, so it changes in place and keeps nothing of what ended well.
    """

    def __init__(self, limit: FloodLimit) -> None:
        self._limit = limit
        self._ended = 0
        self._letters: deque[tuple[int, Letter]] = deque()

    @property
    def letters(self) -> list[Letter]:
        """The dead letters in the window, oldest first."""
        return [letter for _, letter in self._letters]

    def done(self) -> None:
        """Count a delivery that was processed."""
        self._ended += 1
        if self._letters and self._letters[0][0] <= self._ended - self._limit.window:
            self._letters.popleft()

    def dead(self, letter: Letter) -> bool:
        """Count a dead letter; return whether it counts.

        What a subject has beyond ``most_of_one`` does not: neither for the flood nor against it.
        """
        if letter.subject is not None:
            same = sum(each.subject == letter.subject for _, each in self._letters)
            if same >= self._limit.most_of_one:
                return False
        self.done()
        self._letters.append((self._ended, letter))
        return True

    def flood(self) -> Flood | None:
        """Return what the window amounts to, if that is a flood."""
        if len(self._letters) <= self._limit.most:
            return None
        [(reason, _)] = Counter(letter.reason for letter in self.letters).most_common(1)
        return Flood(len(self._letters), min(self._ended, self._limit.window), reason)
