"""The state machine: one thing happens after the other, and after each everything must hold."""

from collections.abc import Set as AbstractSet
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from model import checks
from model.actions import ACTIONS, SECOND, USERS, Work, fresh
from model.flight import answer_of
from model.reference import Key
from model.stage import Stage
from model.transitions import Cause, Move
from model.world import Fate, World

ROUNDS: Final = 8
"""Until everything has settled; each carries a report on by a step or more."""

ANY: Final = frozenset(Cause)


class Billing(RuleBasedStateMachine):
    """Ledger, claims, relay, journal and outcomes, against the reference.

    A report that was once published may be delivered at any time and any number of times, and so
    may every outcome: that covers copies, late ones, and an operator's moves of dead letters.
    Money takes a chain of eight actions. One rule draws among all of them, because of many rules
    Hypothesis leaves out about half in each example, and with them most of the chains.
    """

    def __init__(self, stage: Stage, made: set[Move]) -> None:
        """Begin with nothing; ``made`` takes the moves that are seen."""
        super().__init__()
        self.world = World(stage)
        self.made = made
        self.causes: AbstractSet[Cause] = ANY
        self.intact = True

    @initialize(data=st.data(), users=st.integers(0, 2))
    def begin(self, data: st.DataObject, users: int) -> None:
        """Begin with reports on their way, some to deleted customers: so more examples get far."""
        for user in USERS[:users]:
            self._do(ANY, self.world.provision(user, 1))
            self._do(ANY, self.world.record([fresh(self.world, data, user)]))
            if data.draw(st.booleans()):
                self._do(ANY, self.world.delete_customer(self.world.reference.accounts[user][1]))
        self._do(ANY, self.world.wait(11 * SECOND))
        self._forward()

    @rule(data=st.data())
    def happens(self, data: st.DataObject) -> None:
        """Let one of the possible actions happen."""
        names = [
            name
            for name, each in ACTIONS.items()
            if each.possible(self.world)
            for _ in range(each.weight)
        ]
        action = ACTIONS[data.draw(st.sampled_from(names), label="action")]
        self._do(action.causes, action.act(self.world, data))

    @invariant()
    def holds(self) -> None:
        """Hold every row against the reference, every move against the table, and the money."""
        self.intact = False
        before, after = self.world.seen, self.world.stage.run(self.world.stage.look())
        self.world.seen = after
        made = checks.by_the_table(after, self.causes)
        self.made |= made if self.causes != ANY else set()
        checks.as_predicted(after, self.world.reference)
        checks.nothing_forgotten(before, after)
        checks.money(after, self.world.stripe)
        self.intact = True

    def teardown(self) -> None:
        """Let everything come to its end, undisturbed, and check the end; unless a check failed."""
        if self.intact:
            self.intact = False
            self._settle()
            world = self.world
            checks.all_settled(world.seen, world.reference, world.stripe, world.now)
        for flight in list(self.world.flights):
            self.world.stage.run(self.world.crash(flight))

    def _settle(self) -> None:
        world = self.world
        for flight in list(world.flights):
            self._do(ANY, world.crash(flight))
        for _ in range(ROUNDS):
            self._do(ANY, world.wait(61 * SECOND))
            self._do(ANY, world.sweep())
            self._forward()
            open_ones = [key for key in world.messages if self._is_open(key)]
            if not open_ones:
                break
            for key in open_ones:
                self._deliver_well(key)
        self.holds()

    def _forward(self) -> None:
        self._do(ANY, self.world.claim(at_once=False))
        self.holds()
        self._do(ANY, self.world.lease(at_once=False))
        for lease in self.world.leases:
            self._do(ANY, self.world.publish(lease, [Fate.CONFIRMED] * len(lease), marked=True))
        self.world.leases.clear()

    def _deliver_well(self, key: Key) -> None:
        if key in self.world.fenced():
            self._do(ANY, self.world.settle_by_hand(key))
        self._do(ANY, self.world.deliver(key, reaches=True, calls=True))
        for flight in list(self.world.flights):
            assert flight.truth is not None
            self._do(ANY, self.world.go_on(flight, answer_of(flight.truth)))
        if self.world.outcomes and self.world.outcomes[-1][0] == key:
            self._do(ANY, self.world.answer(self.world.outcomes[-1:]))

    def _is_open(self, key: Key) -> bool:
        bill = self.world.reference.reports[key]
        return bill.state in {"pending", "forwarded"} or (
            bill.state == "rejected" and bill.reason not in checks.UNSENDABLE
        )

    def _do(self, causes: AbstractSet[Cause], work: Work) -> None:
        self.causes, self.intact = causes, False
        self.world.stage.run(work)
        self.intact = True
