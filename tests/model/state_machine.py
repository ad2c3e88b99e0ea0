"""The state machine: one action after the other, with every invariant checked after each."""

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from typing_extensions import override

from model import checks
from model.actions import ACTIONS, HOUR, SECOND, USERS, fresh
from model.checked_run import ANY, CheckedRun
from model.delivery import Outcome, answer_of
from model.environment import Environment
from model.later_actions import may_be_read
from model.reference import Key
from model.system import START, Fate
from nexus_contracts import UsageRejectedLater

MOMENTS: Final = (None, None, START + 5 * SECOND, START + 2 * HOUR)
"""`REPORTING_LIVE_FROM` at first: none, within a window, and later than what is at hand."""

ROUNDS: Final = 8
"""Rounds until everything has settled; each brings a report one step further or more."""


class BillingMachine(RuleBasedStateMachine):
    """Ledger, claims, relay, journal and outcomes, against the reference.

    A published report may be delivered at any time and any number of times, and so may every
    outcome: that covers copies, late deliveries, and an operator's moves of dead letters.
    A counted report takes a chain of eight actions. One rule draws among all actions: of many
    rules Hypothesis leaves out about half in each example, and with them most of the chains.
    """

    def __init__(self, environment: Environment) -> None:
        """Begin with nothing."""
        super().__init__()
        self.run = CheckedRun(environment)
        self.system = self.run.system

    @initialize(data=st.data(), users=st.integers(0, 2), live_from=st.sampled_from(MOMENTS))
    def begin(self, data: st.DataObject, users: int, live_from: datetime | None) -> None:
        """Begin with reports, some forwarded and some of deleted customers: examples get further.

        Before the moment ``live_from``, if there is one, another way reports all usage.
        """
        self.run.do(ANY, self.system.move_moment(live_from))
        for user in USERS[:users]:
            self.run.do(ANY, self.system.provision(user, 1))
            self.run.do(ANY, self.system.record([fresh(self.system, data, user)]))
            if data.draw(st.booleans()):
                customer = self.system.reference.accounts[user][1]
                self.run.do(ANY, self.system.delete_customer(customer))
        self.run.do(ANY, self.system.wait(11 * SECOND))
        self._forward()

    @rule(data=st.data())
    def happens(self, data: st.DataObject) -> None:
        """Let one of the possible actions happen."""
        names = [
            name
            for name, each in ACTIONS.items()
            if each.possible(self.system)
            for _ in range(each.weight)
        ]
        action = ACTIONS[data.draw(st.sampled_from(names), label="action")]
        self.run.do(action.causes, action.act(self.system, data))

    @invariant()
    def holds(self) -> None:
        """Check everything."""
        self.run.check()

    @override
    def teardown(self) -> None:
        """Settle everything without faults and check the final state, unless a check failed."""
        try:
            if self.run.intact:
                self._settle()
                system = self.system
                checks.all_settled(system.seen, system.reference, system.stripe, system.now)
                self._read_all()
                checks.differences_are_exact(system.seen, system.reference, system.stripe)
                for hour, lacking in checks.lacking(system.seen).items():
                    self.run.do(ANY, system.report_otherwise(hour, lacking))
                self._read_all()
                assert not checks.lacking(system.seen)
                checks.differences_are_exact(system.seen, system.reference, system.stripe)
        finally:
            for delivery in list(self.system.deliveries):
                self.system.environment.run(self.system.crash(delivery))

    def _settle(self) -> None:
        system = self.system
        for delivery in list(system.deliveries):
            self.run.do(ANY, system.crash(delivery))
        for _ in range(ROUNDS):
            self.run.do(ANY, system.wait(61 * SECOND))
            self.run.do(ANY, system.sweep())
            self._forward()
            open_ones = [key for key in system.messages if self._is_open(key)]
            self.run.do(ANY, system.hear(system.samples()))
            self.run.do(ANY, system.settle_rejections())
            self.run.do(ANY, system.answer(_said_later(system.outcomes)))
            if not open_ones:
                break
            for key in open_ones:
                self._deliver_well(key)
        self.run.check()

    def _read_all(self) -> None:
        """Read all sums of a day later, when all is shown, each hour by itself or with others."""
        system = self.system
        self.run.do(ANY, system.wait(24 * HOUR))
        for _, hours in groupby(may_be_read(system), lambda hour: hour[:2]):
            [*left] = hours
            while left:
                page = [hour for hour in left if hour[2] - left[0][2] < 2 * HOUR]
                self.run.do(ANY, system.read_sums(page, ()))
                self.run.do(ANY, system.compare_sums(system.readings[-1]))
                left = left[len(page) :]
        self.run.check()

    def _forward(self) -> None:
        self.run.do(ANY, self.system.claim(at_once=False))
        self.run.check()
        self.run.do(ANY, self.system.lease(at_once=False))
        for lease in self.system.leases:
            fates = [Fate.CONFIRMED] * len(lease)
            self.run.do(ANY, self.system.publish(lease, fates, marked=True))
        self.system.leases.clear()

    def _deliver_well(self, key: Key) -> None:
        if key in self.system.in_doubt():
            self.run.do(ANY, self.system.settle_by_hand(key))
        self.run.do(ANY, self.system.deliver(key, reaches=True, calls=True))
        for delivery in list(self.system.deliveries):
            assert delivery.truth is not None
            self.run.do(ANY, self.system.go_on(delivery, answer_of(delivery.truth)))
        if self.system.outcomes and self.system.outcomes[-1][0] == key:
            self.run.do(ANY, self.system.answer(self.system.outcomes[-1:]))

    def _is_open(self, key: Key) -> bool:
        bill = self.system.reference.reports[key]
        return bill.state in {"pending", "forwarded"} or (
            bill.state == "rejected" and bill.reason not in checks.UNSENDABLE
        )


def _said_later(outcomes: Iterable[tuple[Key, Outcome]]) -> list[tuple[Key, Outcome]]:
    return [each for each in outcomes if isinstance(each[1], UsageRejectedLater)]
