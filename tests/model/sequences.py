"""Fixed sequences of steps, which together make every move of the diagrams."""

from collections.abc import Callable
from typing import Final
from uuid import UUID, uuid4

from model.actions import DAY, HOUR, SECOND
from model.checked_run import CheckedRun
from model.delivery import ReportDelivery, answer_of
from model.reference import Key
from model.system import START, Fate, Work
from model.transitions import Cause
from support.events import tool_run
from usage_ingest.metering import ToolRun

USER: Final = UUID(int=1)


class StepSequence(CheckedRun):
    """A run of fixed steps; everything is checked after each step."""

    def step(self, work: Work, *causes: Cause) -> None:
        """Do ``work``, then check."""
        self.do(set(causes), work)
        self.check()

    def record(self, *events: ToolRun) -> None:
        """Record events."""
        self.step(self.system.record(events), Cause.RECORDED)

    def pass_hours(self, hours: float) -> None:
        """Let time pass."""
        self.step(self.system.wait(hours * HOUR))

    def pending(self) -> Key:
        """Make a report that is published, and not marked."""
        self.step(self.system.provision(USER, 1), Cause.PROVISIONED)
        self.record(tool_run(USER, time=START))
        self.step(self.system.wait(11 * SECOND))
        self.step(self.system.claim(at_once=True), Cause.CLAIMED)
        self.step(self.system.lease(at_once=True))
        self.step(self.system.publish(self.system.leases[0], [Fate.CONFIRMED], marked=False))
        [key] = self.system.messages
        return key

    def forwarded(self) -> Key:
        """Make a report that is forwarded."""
        key = self.pending()
        self.mark()
        return key

    def mark(self) -> None:
        """Mark the published report as forwarded, however late."""
        marking = self.system.publish(self.system.leases[0], [Fate.CONFIRMED], marked=True)
        self.step(marking, Cause.FORWARDED)

    def sweep(self) -> None:
        """Sweep."""
        self.step(self.system.sweep(), Cause.SWEPT)

    def refused_call(self, key: Key) -> None:
        """Deliver a report that may not be sent now."""
        self.step(self.system.deliver(key, reaches=True, calls=True))

    def refused_call_settled(self, key: Key) -> None:
        """Have an operator settle a report, and deliver it: no call is made any more."""
        self.step(self.system.settle_by_hand(key), Cause.SETTLED)
        self.refused_call(key)

    def called(self, key: Key, *, reaches: bool = True) -> ReportDelivery:
        """Deliver a report up to its call."""
        self.step(self.system.deliver(key, reaches=reaches, calls=True), Cause.CALLED)
        return self.system.deliveries[-1]

    def hear(self, delivery: ReportDelivery, answer: str) -> None:
        """Let a call be answered."""
        self.step(self.system.go_on(delivery, answer_of(answer)), Cause.HEARD)

    def reject(self) -> None:
        """Let Stripe give back the only report, and hear of it."""
        [report] = self.system.may_be_given_back()
        self.step(self.system.give_back(report))
        self.step(self.system.hear(self.system.samples()))
        self.step(self.system.settle_rejections(), Cause.LATER)

    def settle(self, number: int = -1) -> None:
        """Deliver an outcome: the last one that was published, or another."""
        self.step(self.system.answer([self.system.outcomes[number]]), Cause.ANSWERED)


def events(steps: StepSequence) -> None:
    """Runs of unknown customers, of known ones, unbillable ones, old ones and ageing ones."""
    other, racer = UUID(int=2), UUID(int=3)
    late = START - 35 * DAY
    runs = [tool_run(other, time=START), tool_run(other, time=START, status="failed")]
    steps.record(*runs, tool_run(other, time=late), tool_run(uuid4(), time=late + HOUR))
    steps.step(steps.system.provision(other, 1), Cause.PROVISIONED)
    race = steps.system.record_while_provisioning(racer, [tool_run(racer, time=START)])
    steps.step(race, Cause.RECORDED, Cause.PROVISIONED)
    steps.record(tool_run(racer, time=late + HOUR))
    steps.step(steps.system.wait(11 * SECOND))
    steps.sweep()
    steps.pass_hours(1)
    steps.sweep()


def assigned(steps: StepSequence) -> None:
    """To an account without a customer, before the claim, and to one with a customer."""
    other, team = UUID(int=2), UUID(int=101)
    steps.step(steps.system.provision(USER, 1), Cause.PROVISIONED)
    steps.record(tool_run(USER, time=START), tool_run(other, time=START))
    steps.step(steps.system.assign(USER, START, team), Cause.ASSIGNED)
    steps.step(steps.system.wait(11 * SECOND))
    steps.step(steps.system.claim(at_once=False), Cause.CLAIMED)
    steps.step(steps.system.assign(other, START, USER), Cause.ASSIGNED)
    steps.step(steps.system.provision(team, 1), Cause.PROVISIONED)
    steps.step(steps.system.claim(at_once=False), Cause.CLAIMED)


def reported_in_another_way(steps: StepSequence) -> None:
    """A shadow report is never sent, whatever comes after it."""
    steps.step(steps.system.provision(USER, 1), Cause.PROVISIONED)
    steps.record(tool_run(USER, time=START))
    steps.step(steps.system.wait(11 * SECOND))
    steps.step(steps.system.move_moment(steps.system.now))
    steps.step(steps.system.claim(at_once=True), Cause.CLAIMED)
    steps.step(steps.system.move_moment(None))
    steps.step(steps.system.lease(at_once=True))
    steps.sweep()
    assert not steps.system.leases


def nothing_waiting_is_claimed(steps: StepSequence) -> None:
    """A waiting event is not claimed, even with its customer known: a sweep makes it due first."""
    race = steps.system.record_while_provisioning(USER, [tool_run(USER, time=START)])
    steps.step(race, Cause.RECORDED, Cause.PROVISIONED)
    steps.step(steps.system.wait(11 * SECOND))
    steps.step(steps.system.claim(at_once=False))


def counted_at_once(steps: StepSequence) -> None:
    """No fault, but the mark is made once more."""
    steps.hear(steps.called(steps.forwarded()), "accepted")
    steps.settle()
    steps.mark()


def overtaken(steps: StepSequence) -> None:
    """The outcome arrives before the report is marked as forwarded."""
    steps.hear(steps.called(steps.pending()), "accepted")
    steps.settle()


def given_back(steps: StepSequence) -> None:
    """Counted, and rejected later; neither a repeated outcome nor another delivery undoes it."""
    key = steps.forwarded()
    steps.hear(steps.called(key), "accepted")
    steps.settle()
    steps.reject()
    steps.settle()
    steps.settle(0)
    steps.refused_call(key)
    steps.settle()


def given_back_before_it_is_known(steps: StepSequence, *, forwarded: bool) -> None:
    """That it is rejected arrives before the outcome that it rejects, and before the mark."""
    steps.hear(steps.called(steps.forwarded() if forwarded else steps.pending()), "accepted")
    steps.reject()
    steps.settle()
    steps.settle(0)
    steps.mark()


def given_back_after_a_refusal(steps: StepSequence) -> None:
    """Refused, moved and counted, rejected later; the outcome in between comes last."""
    key = steps.forwarded()
    steps.hear(steps.called(key, reaches=False), "refused")
    steps.settle()
    steps.hear(steps.called(key), "accepted")
    steps.reject()
    steps.settle()
    steps.settle(-2)


def heard_before_the_answer(steps: StepSequence) -> None:
    """Stripe names the attempt while its answer is lost; a duplicate is what is heard then."""
    key = steps.forwarded()
    call = steps.called(key)
    [report] = steps.system.may_be_given_back()
    steps.step(steps.system.give_back(report))
    steps.step(steps.system.hear(steps.system.samples()))
    steps.step(steps.system.settle_rejections())
    steps.hear(call, "server_error")
    steps.step(steps.system.settle_rejections())
    steps.hear(steps.called(key), "duplicate")
    steps.step(steps.system.settle_rejections(), Cause.LATER)
    steps.settle()


def moved_by_an_operator(steps: StepSequence) -> None:
    """Refused before it is marked, moved and refused again, moved and counted.

    Neither another customer nor a repeated old refusal changes anything.
    """
    key = steps.pending()
    for answer in ("refused", "refused", "accepted"):
        steps.hear(steps.called(key, reaches=answer == "accepted"), answer)
        steps.settle()
        steps.step(steps.system.provision(USER, 2), Cause.PROVISIONED)
        steps.sweep()
    steps.settle(0)


def customer_deleted(steps: StepSequence, *before: str) -> None:
    """Refused for a deleted customer, and replaced for the next one.

    After a lost answer it is replaced once an operator found that Stripe has not counted it.
    """
    key = steps.forwarded()
    for answer in before:
        steps.hear(steps.called(key, reaches=False), answer)
    steps.step(steps.system.reprovision(USER), Cause.PROVISIONED)
    steps.hear(steps.called(key), "no_such_customer")
    if before:
        steps.refused_call_settled(key)
    steps.settle()
    steps.sweep()


def lost_and_deleted(steps: StepSequence) -> None:
    """A caller dies, its customer is deleted, and an operator finds nothing counted."""
    key = steps.forwarded()
    steps.step(steps.system.crash(steps.called(key, reaches=False)))
    steps.step(steps.system.reprovision(USER), Cause.PROVISIONED)
    steps.pass_hours(24)
    steps.refused_call_settled(key)
    steps.settle()
    steps.sweep()


def frozen_before_its_call(steps: StepSequence) -> None:
    """A process that was suspended between claim and call makes no call any more."""
    key = steps.forwarded()
    steps.step(steps.system.deliver(key, reaches=True, calls=False), Cause.CALLED)
    steps.step(steps.system.wait(6 * SECOND))
    steps.step(steps.system.go_on(steps.system.deliveries[-1], None), Cause.HEARD)
    assert not steps.system.stripe.counted


def late_answer(steps: StepSequence, meanwhile: str) -> None:
    """A call is answered after a second call, which took over, was answered ``meanwhile``."""
    key = steps.forwarded()
    first = steps.called(key)
    steps.step(steps.system.wait(6 * SECOND))
    steps.refused_call(key)
    steps.step(steps.system.wait(15 * SECOND))
    steps.hear(steps.called(key, reaches=False), meanwhile)
    steps.hear(first, "accepted")


def fenced(steps: StepSequence, *answers: str) -> None:
    """Calls get these answers, a further one gets none, and an operator settles the report."""
    key = steps.forwarded()
    for answer in answers:
        steps.hear(steps.called(key, reaches=False), answer)
    if not answers:
        steps.step(steps.system.crash(steps.called(key)))
    steps.pass_hours(24)
    steps.refused_call(key)
    steps.step(steps.system.settle_by_hand(key), Cause.SETTLED)


SEQUENCES: Final[tuple[Callable[[StepSequence], None], ...]] = (
    events,
    assigned,
    reported_in_another_way,
    counted_at_once,
    overtaken,
    given_back,
    lambda steps: given_back_before_it_is_known(steps, forwarded=True),
    lambda steps: given_back_before_it_is_known(steps, forwarded=False),
    given_back_after_a_refusal,
    heard_before_the_answer,
    moved_by_an_operator,
    customer_deleted,
    lambda steps: customer_deleted(steps, "lost"),
    lost_and_deleted,
    nothing_waiting_is_claimed,
    frozen_before_its_call,
    lambda steps: late_answer(steps, "lost"),
    lambda steps: late_answer(steps, "refused"),
    fenced,
    lambda steps: fenced(steps, "lost"),
    lambda steps: fenced(steps, "lost", "refused"),
)
