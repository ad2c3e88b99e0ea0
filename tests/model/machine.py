"""The state machine: one thing happens after the other, and after each everything must hold."""

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from model import checks
from model.actions import ACTIONS, SECOND, USERS, fresh
from model.course import ANY, Course
from model.flight import answer_of
from model.reference import Key
from model.stage import Stage
from model.world import Fate

ROUNDS: Final = 8
"""Until everything has settled; each carries a report on by a step or more."""


class Billing(RuleBasedStateMachine):
    """Ledger, claims, relay, journal and outcomes, against the reference.

    A report that was once published may be delivered at any time and any number of times, and so
    may every outcome: that covers copies, late ones, and an operator's moves of dead letters.
    Money takes a chain of eight actions. One rule draws among all of them, because of many rules
    Hypothesis leaves out about half in each example, and with them most of the chains.
    """

    def __init__(self, stage: Stage) -> None:
        """Begin with nothing."""
        super().__init__()
        self.course = Course(stage)
        self.world = self.course.world

    @initialize(data=st.data(), users=st.integers(0, 2))
    def begin(self, data: st.DataObject, users: int) -> None:
        """Begin with reports on their way, some to deleted customers: so more examples get far."""
        for user in USERS[:users]:
            self.course.do(ANY, self.world.provision(user, 1))
            self.course.do(ANY, self.world.record([fresh(self.world, data, user)]))
            if data.draw(st.booleans()):
                customer = self.world.reference.accounts[user][1]
                self.course.do(ANY, self.world.delete_customer(customer))
        self.course.do(ANY, self.world.wait(11 * SECOND))
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
        self.course.do(action.causes, action.act(self.world, data))

    @invariant()
    def holds(self) -> None:
        """Check everything."""
        self.course.check()

    def teardown(self) -> None:
        """Let everything come to its end, undisturbed, and check the end; unless a check failed."""
        try:
            if self.course.intact:
                self._settle()
                world = self.world
                checks.all_settled(world.seen, world.reference, world.stripe, world.now)
        finally:
            for flight in list(self.world.flights):
                self.world.stage.run(self.world.crash(flight))

    def _settle(self) -> None:
        world = self.world
        for flight in list(world.flights):
            self.course.do(ANY, world.crash(flight))
        for _ in range(ROUNDS):
            self.course.do(ANY, world.wait(61 * SECOND))
            self.course.do(ANY, world.sweep())
            self._forward()
            open_ones = [key for key in world.messages if self._is_open(key)]
            if not open_ones:
                break
            for key in open_ones:
                self._deliver_well(key)
        self.course.check()

    def _forward(self) -> None:
        self.course.do(ANY, self.world.claim(at_once=False))
        self.course.check()
        self.course.do(ANY, self.world.lease(at_once=False))
        for lease in self.world.leases:
            fates = [Fate.CONFIRMED] * len(lease)
            self.course.do(ANY, self.world.publish(lease, fates, marked=True))
        self.world.leases.clear()

    def _deliver_well(self, key: Key) -> None:
        if key in self.world.in_doubt():
            self.course.do(ANY, self.world.settle_by_hand(key))
        self.course.do(ANY, self.world.deliver(key, reaches=True, calls=True))
        for flight in list(self.world.flights):
            assert flight.truth is not None
            self.course.do(ANY, self.world.go_on(flight, answer_of(flight.truth)))
        if self.world.outcomes and self.world.outcomes[-1][0] == key:
            self.course.do(ANY, self.world.answer(self.world.outcomes[-1:]))

    def _is_open(self, key: Key) -> bool:
        bill = self.world.reference.reports[key]
        return bill.state in {"pending", "forwarded"} or (
            bill.state == "rejected" and bill.reason not in checks.UNSENDABLE
        )
