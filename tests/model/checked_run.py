"""Actions done one after the other on a system of their own, with all checks in between."""

from collections.abc import Coroutine
from collections.abc import Set as AbstractSet
from typing import Any, Final

from model import checks
from model.environment import Environment
from model.system import System
from model.transitions import Cause, Move

ANY: Final = frozenset(Cause)


class CheckedRun:
    """``made`` holds the observed moves; ``intact`` is false once an action or a check failed."""

    def __init__(self, environment: Environment) -> None:
        self.system = System(environment)
        self.made: set[Move] = set()
        self.intact = True
        self._causes: AbstractSet[Cause] = ANY

    def do(self, causes: AbstractSet[Cause], work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, whose moves must have one of ``causes``."""
        self._causes, self.intact = causes, False
        self.system.environment.run(work)
        self.intact = True

    def check(self) -> None:
        """Compare every row with the reference, every move with the table, and the sums."""
        self.intact = False
        environment = self.system.environment
        before, after = self.system.seen, environment.run(environment.look())
        self.system.seen = after
        self.made |= checks.by_the_table(after, self._causes)
        checks.as_predicted(after, self.system.reference)
        checks.sums_as_predicted(after, self.system.sums)
        checks.nothing_forgotten(before, after)
        checks.money(after, self.system.stripe)
        self.intact = True
