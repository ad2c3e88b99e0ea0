"""Actions done one after the other in a world of their own, everything checked in between."""

from collections.abc import Coroutine
from collections.abc import Set as AbstractSet
from typing import Any, Final

from model import checks
from model.stage import Stage
from model.transitions import Cause, Move
from model.world import World

ANY: Final = frozenset(Cause)


class Course:
    """``made`` are the moves that were seen; ``intact`` tells that nothing has failed so far."""

    def __init__(self, stage: Stage) -> None:
        self.world = World(stage)
        self.made: set[Move] = set()
        self.intact = True
        self._causes: AbstractSet[Cause] = ANY

    def do(self, causes: AbstractSet[Cause], work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, whose moves are to be by some of ``causes``."""
        self._causes, self.intact = causes, False
        self.world.stage.run(work)
        self.intact = True

    def check(self) -> None:
        """Hold every row against the reference, every move against the table, and the money."""
        self.intact = False
        before, after = self.world.seen, self.world.stage.run(self.world.stage.look())
        self.world.seen = after
        self.made |= checks.by_the_table(after, self._causes)
        checks.as_predicted(after, self.world.reference)
        checks.nothing_forgotten(before, after)
        checks.money(after, self.world.stripe)
        self.intact = True
