"""Whose flood it is, on a queue that several publishers fill: one's, or everybody's.

A decision over values, without I/O. The ``source`` of an envelope is what its publisher says of
itself, so a name counts only once enough messages that bear it have ended well. All other names
share one window with what nobody can read: a publisher that changes its name with each message has
no more room than one that keeps it.
"""

from collections import Counter, OrderedDict, deque
from typing import Final

from nexus_messaging.flood import Flood, FloodLimit, FloodWindow, Letter

KNOWN_AFTER: Final = 10
"""Messages of a source that ended well before it has a window of its own."""

MOST_KNOWN: Final = 200
"""Sources with a window of their own, and others on their way there: memory stays bounded. The one
that was not seen for longest makes room."""


class Sources:
    """What ended of each source of one queue.

    ``None`` stands for all that are not known. ``held`` has those whose dead letters are held back.
    """

    def __init__(self, limit: FloodLimit) -> None:
        self.held: dict[str | None, Flood] = {}
        self._limit = limit
        self._windows: OrderedDict[str | None, FloodWindow] = OrderedDict(
            {None: FloodWindow(limit)}
        )
        self._candidates: OrderedDict[str, int] = OrderedDict()
        self._ends: deque[str | None] = deque(maxlen=limit.window)

    def done(self, source: str | None) -> None:
        """Count a message of ``source`` that was processed."""
        self._ends.append(source)
        if source is not None and source not in self._windows:
            self._prove(source)
        self._window(source).done()

    def dead(self, letter: Letter) -> Flood | None:
        """Count a dead letter and return the flood of its source, if it is one."""
        window = self._window(letter.source)
        if window.dead(letter):
            self._ends.append(letter.source)
        return window.flood()

    def known_as(self, source: str | None) -> str | None:
        """Return the name by which ``source`` is counted: its own, or none."""
        return source if source in self._windows else None

    def most_flood(self, letters: list[Letter]) -> bool:
        """Return whether most sources flood at once, by the dead letters of the queue's window.

        Those that are held back already do not count. Names that are not known count only while no
        known source is well: otherwise one publisher could be most of the sources, by many names.
        They must count then, because while a release of ours can read nothing, no name becomes
        known.
        """
        ends = Counter(self._ends)
        dead = Counter(letter.source for letter in letters)
        flooding = {
            source
            for source, number in dead.items()
            if source is not None
            and source not in self.held
            and number >= self._limit.least_of_source
            and number > self._limit.share * ends[source]
        }
        well = {source for source, number in ends.items() if number > dead[source]}
        if any(source is not None and source in self._windows for source in well - flooding):
            flooding &= self._windows.keys()
        return len(flooding) > 1 and 2 * len(flooding) > len(well | flooding)

    def resume(self) -> None:
        """Hold nothing against any source any more; who is known stays known."""
        self.held.clear()
        self._ends.clear()
        for source in self._windows:
            self._windows[source] = FloodWindow(self._limit)

    def _window(self, source: str | None) -> FloodWindow:
        known_as = self.known_as(source)
        self._windows.move_to_end(known_as)
        return self._windows[known_as]

    def _prove(self, source: str) -> None:
        well = self._candidates.pop(source, 0) + 1
        if well < KNOWN_AFTER:
            self._candidates[source] = well
            if len(self._candidates) > MOST_KNOWN:
                self._candidates.popitem(last=False)
        elif self._has_room():
            self._windows[source] = FloodWindow(self._limit)

    def _has_room(self) -> bool:
        if len(self._windows) <= MOST_KNOWN:  # one of the windows is everybody else's
            return True
        idle = (each for each in self._windows if each is not None and each not in self.held)
        longest_unseen = next(idle, None)
        if longest_unseen is not None:
            del self._windows[longest_unseen]
        return longest_unseen is not None
