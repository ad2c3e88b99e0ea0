"""Known ways through the diagrams, which together take every move."""

from collections.abc import Callable
from typing import Final
from uuid import UUID, uuid4

from model.actions import DAY, HOUR, SECOND
from model.course import Course
from model.flight import Flight, answer_of
from model.reference import Key
from model.transitions import Cause
from model.world import START, Fate, Work
from rig.events import tool_run
from usage_ingest.metering import ToolRun

USER: Final = UUID(int=1)


class Walk(Course):
    """A course that is known beforehand; each step is checked."""

    def step(self, work: Work, *causes: Cause) -> None:
        """Do ``work``, then check."""
        self.do(set(causes), work)
        self.check()

    def record(self, *events: ToolRun) -> None:
        """Record events."""
        self.step(self.world.record(events), Cause.RECORDED)

    def pass_hours(self, hours: float) -> None:
        """Let time pass."""
        self.step(self.world.wait(hours * HOUR))

    def pending(self) -> Key:
        """Bring a report into the world that is published, and not marked."""
        self.step(self.world.provision(USER, 1), Cause.PROVISIONED)
        self.record(tool_run(USER, time=START))
        self.step(self.world.wait(11 * SECOND))
        self.step(self.world.claim(at_once=True), Cause.CLAIMED)
        self.step(self.world.lease(at_once=True))
        self.step(self.world.publish(self.world.leases[0], [Fate.CONFIRMED], marked=False))
        [key] = self.world.messages
        return key

    def forwarded(self) -> Key:
        """Bring a report into the world that is forwarded."""
        key = self.pending()
        self.mark()
        return key

    def mark(self) -> None:
        """Mark the published report as forwarded, however late."""
        marking = self.world.publish(self.world.leases[0], [Fate.CONFIRMED], marked=True)
        self.step(marking, Cause.FORWARDED)

    def sweep(self) -> None:
        """Sweep."""
        self.step(self.world.sweep(), Cause.SWEPT)

    def turned_away(self, key: Key) -> None:
        """Deliver a report that may not be called now."""
        self.step(self.world.deliver(key, reaches=True, calls=True))

    def turned_away_settled(self, key: Key) -> None:
        """Have a person settle a report, and deliver it: it makes no call any more."""
        self.step(self.world.settle_by_hand(key), Cause.SETTLED)
        self.turned_away(key)

    def called(self, key: Key, *, reaches: bool = True) -> Flight:
        """Deliver a report up to its call."""
        self.step(self.world.deliver(key, reaches=reaches, calls=True), Cause.CALLED)
        return self.world.flights[-1]

    def hear(self, flight: Flight, answer: str) -> None:
        """Let a call be answered."""
        self.step(self.world.go_on(flight, answer_of(answer)), Cause.HEARD)

    def told(self, number: int = -1) -> None:
        """Deliver an outcome: the one that was told last, or another."""
        self.step(self.world.answer([self.world.outcomes[number]]), Cause.ANSWERED)


def events(walk: Walk) -> None:
    """Runs of unknown customers, of known ones, of none; too old ones, and those that get so."""
    stranger, racer = UUID(int=2), UUID(int=3)
    late = START - 35 * DAY
    runs = [tool_run(stranger, time=START), tool_run(stranger, time=START, status="failed")]
    walk.record(*runs, tool_run(stranger, time=late), tool_run(uuid4(), time=late + HOUR))
    walk.step(walk.world.provision(stranger, 1), Cause.PROVISIONED)
    race = walk.world.record_while_provisioning(racer, [tool_run(racer, time=START)])
    walk.step(race, Cause.RECORDED, Cause.PROVISIONED)
    walk.record(tool_run(racer, time=late + HOUR))
    walk.step(walk.world.wait(11 * SECOND))
    walk.sweep()
    walk.pass_hours(1)
    walk.sweep()


def nothing_waiting_is_claimed(walk: Walk) -> None:
    """Not even with its customer known: a sweep makes it due first."""
    race = walk.world.record_while_provisioning(USER, [tool_run(USER, time=START)])
    walk.step(race, Cause.RECORDED, Cause.PROVISIONED)
    walk.step(walk.world.wait(11 * SECOND))
    walk.step(walk.world.claim(at_once=False))


def counted_at_once(walk: Walk) -> None:
    """Nothing goes wrong, but that the mark comes once more."""
    walk.hear(walk.called(walk.forwarded()), "accepted")
    walk.told()
    walk.mark()


def overtaken(walk: Walk) -> None:
    """The outcome is known before the report is marked as forwarded."""
    walk.hear(walk.called(walk.pending()), "accepted")
    walk.told()


def moved_by_an_operator(walk: Walk) -> None:
    """Refused before it is marked, moved and refused again, moved and counted.

    Neither another customer nor an old refusal that comes again changes anything.
    """
    key = walk.pending()
    for answer in ("refused", "refused", "accepted"):
        walk.hear(walk.called(key, reaches=answer == "accepted"), answer)
        walk.told()
        walk.step(walk.world.provision(USER, 2), Cause.PROVISIONED)
        walk.sweep()
    walk.told(0)


def customer_deleted(walk: Walk, *before: str) -> None:
    """Refused for a deleted customer, and replaced for the next one.

    If an answer was lost before, it is replaced once a person found that Stripe has not counted it.
    """
    key = walk.forwarded()
    for answer in before:
        walk.hear(walk.called(key, reaches=False), answer)
    walk.step(walk.world.reprovision(USER), Cause.PROVISIONED)
    walk.hear(walk.called(key), "no_such_customer")
    if before:
        walk.turned_away_settled(key)
    walk.told()
    walk.sweep()


def lost_and_deleted(walk: Walk) -> None:
    """A caller dies, its customer is deleted, and a person finds nothing counted."""
    key = walk.forwarded()
    walk.step(walk.world.crash(walk.called(key, reaches=False)))
    walk.step(walk.world.reprovision(USER), Cause.PROVISIONED)
    walk.pass_hours(24)
    walk.turned_away_settled(key)
    walk.told()
    walk.sweep()


def frozen_before_its_call(walk: Walk) -> None:
    """A process that sleeps between claim and call makes no call any more."""
    key = walk.forwarded()
    walk.step(walk.world.deliver(key, reaches=True, calls=False), Cause.CALLED)
    walk.step(walk.world.wait(6 * SECOND))
    walk.step(walk.world.go_on(walk.world.flights[-1], None), Cause.HEARD)
    assert not walk.world.stripe.counted


def late_answer(walk: Walk, meanwhile: str) -> None:
    """A call is answered after another one, that took over, was answered ``meanwhile``."""
    key = walk.forwarded()
    first = walk.called(key)
    walk.step(walk.world.wait(6 * SECOND))
    walk.turned_away(key)
    walk.step(walk.world.wait(15 * SECOND))
    walk.hear(walk.called(key, reaches=False), meanwhile)
    walk.hear(first, "accepted")


def fenced(walk: Walk, *answers: str) -> None:
    """Calls are answered so, another is never answered, and a person settles it."""
    key = walk.forwarded()
    for answer in answers:
        walk.hear(walk.called(key, reaches=False), answer)
    if not answers:
        walk.step(walk.world.crash(walk.called(key)))
    walk.pass_hours(24)
    walk.turned_away(key)
    walk.step(walk.world.settle_by_hand(key), Cause.SETTLED)


WALKS: Final[tuple[Callable[[Walk], None], ...]] = (
    events,
    counted_at_once,
    overtaken,
    moved_by_an_operator,
    customer_deleted,
    lambda walk: customer_deleted(walk, "lost"),
    lost_and_deleted,
    nothing_waiting_is_claimed,
    frozen_before_its_call,
    lambda walk: late_answer(walk, "lost"),
    lambda walk: late_answer(walk, "refused"),
    fenced,
    lambda walk: fenced(walk, "lost"),
    lambda walk: fenced(walk, "lost", "refused"),
)
