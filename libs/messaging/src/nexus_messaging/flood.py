"""Decides whether dead letters are a flood: pure, without I/O.

Only final results count: processed or dead-lettered. Retries do not count, or a message with five
attempts would count four times as healthy. A message that an operator moved does not count either:
it was a dead letter before, so dead-lettering it again adds none.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from math import floor
from typing import Final

from typing_extensions import override

from nexus_messaging.reasons import Reason

SUBJECT_ONE_IN: Final = 10
"""One subject counts for at most one in this many dead letters of a flood."""

SOURCE_ONE_IN: Final = 100
MIN_PER_SOURCE: Final = 2
"""A source is part of a queue's flood if one in ``SOURCE_ONE_IN`` of its dead letters, and at least
``MIN_PER_SOURCE``, are of the source: one bad message is no evidence against its publisher."""


@dataclass(frozen=True, slots=True)
class FloodLimit:
    """A flood is more than ``share`` of the last ``window`` results; a share of 1 disables it."""

    share: float = 0.5
    window: int = 1000

    @property
    def max_dead_letters(self) -> int:
        """The most dead letters in a window that are no flood."""
        return floor(round(self.share * self.window, 6))  # 0.29 times 100 is a little below 29

    @property
    def max_per_subject(self) -> int:
        """The most dead letters that count for one subject: one busy customer is no flood."""
        return max(1, self.max_dead_letters // SUBJECT_ONE_IN)

    @property
    def min_per_source(self) -> int:
        """The fewest dead letters that make a source part of the flood of a whole queue."""
        return max(MIN_PER_SOURCE, self.max_dead_letters // SOURCE_ONE_IN)


@dataclass(frozen=True, slots=True)
class Flood:
    """Why a queue is stopped, or the dead letters of a source are held back."""

    dead: int
    window: int
    reason: Reason

    @override
    def __str__(self) -> str:
        """Describe the flood to an operator."""
        return (
            f"{self.dead} of the last {self.window} messages were dead-lettered,"
            f" most of them as {self.reason.value}"
        )


@dataclass(frozen=True, slots=True)
class DeadLetterCause:
    """The reason, the party at fault and the publisher of a dead letter; ``None`` if unknown."""

    reason: Reason
    subject: str | None = field(default=None, repr=False)
    source: str | None = field(default=None, repr=False)


class FloodWindow:
    """The last results of a queue, or of one source of it.

    It is used for every message, so it is mutable and stores dead letters only.
    """

    def __init__(self, limit: FloodLimit) -> None:
        self._limit = limit
        self._ended = 0
        self._letters: deque[tuple[int, DeadLetterCause]] = deque()

    @property
    def letters(self) -> list[DeadLetterCause]:
        """The dead letters in the window, oldest first."""
        return [letter for _, letter in self._letters]

    def count_processed(self, number: int = 1) -> None:
        """Count deliveries that were processed."""
        self._ended += number
        while self._letters and self._letters[0][0] <= self._ended - self._limit.window:
            self._letters.popleft()

    def count_dead_letter(self, letter: DeadLetterCause) -> bool:
        """Count a dead letter; return whether it counts.

        Dead letters of a subject beyond ``max_per_subject`` are ignored.
        """
        if letter.subject is not None:
            same = sum(each.subject == letter.subject for _, each in self._letters)
            if same >= self._limit.max_per_subject:
                return False
        self.count_processed()
        self._letters.append((self._ended, letter))
        return True

    def flood(self) -> Flood | None:
        """Return the flood in the window, if there is one."""
        if len(self._letters) <= self._limit.max_dead_letters:
            return None
        [(reason, _)] = Counter(letter.reason for letter in self.letters).most_common(1)
        return Flood(len(self._letters), min(self._ended, self._limit.window), reason)
