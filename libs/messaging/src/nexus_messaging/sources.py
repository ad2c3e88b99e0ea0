"""Decides whether one publisher of a queue floods it, or most of them: pure, without I/O.

A publisher states its own ``source`` in the envelope, so a source is known only after enough of its
messages were processed. All unknown sources share one window with unreadable messages: a publisher
that changes its name with each message gains nothing.
"""

from collections import Counter, OrderedDict, deque
from typing import Final

from nexus_messaging.flood import DeadLetterCause, Flood, FloodLimit, FloodWindow

KNOWN_AFTER: Final = 10
"""Processed messages after which a source has a window of its own."""

MAX_KNOWN: Final = 200
"""Known sources at most, and candidates at most, so that memory is bounded. The least recently seen
one is removed."""


class Sources:
    """The results of each source of one queue.

    ``None`` stands for all unknown sources. ``held`` has the sources that are held back.
    """

    def __init__(self, limit: FloodLimit) -> None:
        self.held: dict[str | None, Flood] = {}
        self._limit = limit
        self._windows: OrderedDict[str | None, FloodWindow] = OrderedDict(
            {None: FloodWindow(limit)}
        )
        self._candidates: OrderedDict[str, int] = OrderedDict()
        self._ends: deque[str | None] = deque(maxlen=limit.window)

    def count_processed(self, sources: list[str | None]) -> None:
        """Count messages of ``sources`` that were processed, in their order."""
        self._ends.extend(sources)
        for source, number in Counter(sources).items():
            if source in self._windows:
                self._window(source).count_processed(number)
            else:
                self._count_unknown(source, number)

    def count_dead_letter(self, letter: DeadLetterCause) -> Flood | None:
        """Count a dead letter and return the flood of its source, if it is one."""
        window = self._window(letter.source)
        if window.count_dead_letter(letter):
            self._ends.append(letter.source)
        return window.flood()

    def known_as(self, source: str | None) -> str | None:
        """Return ``source`` if it is known, else ``None``."""
        return source if source in self._windows else None

    def most_sources_flood(self, letters: list[DeadLetterCause]) -> bool:
        """Return whether most sources flood at once; ``letters`` are those of the queue's window.

        Sources that are held back do not count. Unknown sources count only while no known source
        is healthy: otherwise one publisher could be most of the sources by using many names.
        Without a healthy known source they must count, because no source becomes known while a
        faulty release cannot read anything.
        """
        ends = Counter(self._ends)
        dead = Counter(letter.source for letter in letters)
        flooding = {
            source
            for source, number in dead.items()
            if source is not None
            and source not in self.held
            and number >= self._limit.min_per_source
            and number > self._limit.share * ends[source]
        }
        healthy = {source for source, number in ends.items() if number > dead[source]}
        if any(source is not None and source in self._windows for source in healthy - flooding):
            flooding &= self._windows.keys()
        return len(flooding) > 1 and 2 * len(flooding) > len(healthy | flooding)

    def resume(self) -> None:
        """Release every source and empty all windows; known sources stay known."""
        self.held.clear()
        self._ends.clear()
        for source in self._windows:
            self._windows[source] = FloodWindow(self._limit)

    def _window(self, source: str | None) -> FloodWindow:
        known_as = self.known_as(source)
        self._windows.move_to_end(known_as)
        return self._windows[known_as]

    def _count_unknown(self, source: str | None, number: int) -> None:
        for _ in range(number):  # one of them may make it known
            if source is not None and source not in self._windows:
                self._count_candidate(source)
            self._window(source).count_processed()

    def _count_candidate(self, source: str) -> None:
        processed = self._candidates.pop(source, 0) + 1
        if processed < KNOWN_AFTER:
            self._candidates[source] = processed
            if len(self._candidates) > MAX_KNOWN:
                self._candidates.popitem(last=False)
        elif self._make_room():
            self._windows[source] = FloodWindow(self._limit)

    def _make_room(self) -> bool:
        if len(self._windows) <= MAX_KNOWN:  # one window is that of the unknown sources
            return True
        idle = (each for each in self._windows if each is not None and each not in self.held)
        least_recent = next(idle, None)
        if least_recent is not None:
            del self._windows[least_recent]
        return least_recent is not None
