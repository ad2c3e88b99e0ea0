"""What may happen next: the world's actions, and how often each is drawn."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from hypothesis import strategies as st

from model.flight import Flight, answer_of, with_new_key
from model.transitions import Cause
from model.world import Fate, Work, World
from nexus_stripe.answer_classes import Effect
from nexus_stripe.answers import Answer
from rig.events import tool_run
from stripe_reporter.stripe.responses import TABLE
from usage_ingest.metering import ToolRun

USERS: Final = tuple(UUID(int=number) for number in (1, 2, 3))
MOST_FLIGHTS: Final = 3

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
YOUNG: Final = (0 * SECOND, 3 * SECOND, 12 * SECOND, 2 * HOUR)
AGES: Final = (*YOUNG, *YOUNG, *YOUNG, 35 * DAY - HOUR, 35 * DAY)
SHORT: Final = tuple(number * SECOND for number in (1, 4, 11, 21, 21, 61))
HOURS: Final = (HOUR, 22 * HOUR, 24 * HOUR)
LONG: Final = (*HOURS, *HOURS, *HOURS, *HOURS, 34 * DAY)  # after which nothing is young any more

EITHER: Final = st.booleans()
LIKELY: Final = st.sampled_from((True, True, True, False))


@dataclass(frozen=True)
class Action:
    """Something that may happen: ``act`` draws what exactly and returns the work."""

    act: Callable[[World, st.DataObject], Work]
    weight: int
    causes: AbstractSet[Cause] = field(default_factory=frozenset)
    possible: Callable[[World], object] = lambda _: True


def _strangers(world: World) -> list[UUID]:
    return [each for each in USERS if each not in world.reference.accounts]


def _has_room(world: World) -> bool:
    return bool(world.messages) and len(world.flights) < MOST_FLIGHTS


def record(world: World, data: st.DataObject) -> Work:
    """Record a batch of events: new, known, or with an id that is taken."""
    return world.record([_event(world, data) for _ in range(data.draw(st.integers(1, 3)))])


def provision(world: World, data: st.DataObject) -> Work:
    """Announce a user's former, known or next customer."""
    user, step = data.draw(st.sampled_from(USERS)), data.draw(st.sampled_from((1, 0, -1)))
    generation, _ = world.reference.accounts.get(user, (0, ""))
    return world.provision(user, max(1, generation + step))


def reprovision(world: World, data: st.DataObject) -> Work:
    """Delete a user's customer at Stripe and announce the next one."""
    user = data.draw(st.sampled_from(list(world.reference.accounts)))
    return world.reprovision(user)


def delete_customer(world: World, data: st.DataObject) -> Work:
    """Delete a customer at Stripe."""
    accounts = sorted(world.reference.accounts.values())
    return world.delete_customer(data.draw(st.sampled_from(accounts))[1])


def record_while_provisioning(world: World, data: st.DataObject) -> Work:
    """Record a user's events in a transaction that is open while the account comes."""
    user = data.draw(st.sampled_from(_strangers(world)))
    return world.record_while_provisioning(user, [fresh(world, data, user) for _ in range(2)])


def claim(world: World, data: st.DataObject) -> Work:
    """Claim, or have two claim at the same moment."""
    return world.claim(at_once=data.draw(EITHER))


def sweep(world: World, _: st.DataObject) -> Work:
    """Sweep."""
    return world.sweep()


def lease(world: World, data: st.DataObject) -> Work:
    """Lease what is pending, or have two do so at the same moment."""
    return world.lease(at_once=data.draw(EITHER))


def publish(world: World, data: st.DataObject) -> Work:
    """Publish a lease, and mark it unless the process dies before.

    A lease may be published again: one that ran out, by a process that was frozen.
    """
    leased = data.draw(st.sampled_from(world.leases))
    fates = [data.draw(st.sampled_from((Fate.CONFIRMED, *Fate))) for _ in leased]
    return world.publish(leased, fates, marked=data.draw(EITHER))


def deliver(world: World, data: st.DataObject) -> Work:
    """Deliver a report up to its call, which Stripe gets or not, or to right before it."""
    likely = [flight.key for flight in world.flights] * 2  # copies of what is under way
    key = data.draw(st.sampled_from([*world.messages, *likely]))
    return world.deliver(key, reaches=data.draw(EITHER), calls=data.draw(LIKELY))


def go_on(world: World, data: st.DataObject) -> Work:
    """Let a halted delivery go on: into its call, or with an answer."""
    flight = data.draw(st.sampled_from(world.flights))
    flight.published.arrives, flight.published.confirmed = data.draw(LIKELY), data.draw(LIKELY)
    return world.go_on(flight, _answer(flight, data) if flight.place == "called" else None)


def crash(world: World, data: st.DataObject) -> Work:
    """Let the process of a halted delivery die."""
    return world.crash(data.draw(st.sampled_from(world.flights)))


def answer(world: World, data: st.DataObject) -> Work:
    """Apply a batch of outcomes in any order, repeated or not."""
    told = st.lists(st.sampled_from(world.outcomes), min_size=1, max_size=3)
    return world.answer(data.draw(told))


def settle_by_hand(world: World, data: st.DataObject) -> Work:
    """Have a person look at Stripe for a report."""
    return world.settle_by_hand(data.draw(st.sampled_from(world.in_doubt())))


def wait(world: World, data: st.DataObject) -> Work:
    """Let seconds pass."""
    return world.wait(data.draw(st.sampled_from(SHORT)))


def wait_long(world: World, data: st.DataObject) -> Work:
    """Let hours or weeks pass."""
    return world.wait(data.draw(st.sampled_from(LONG)))


ACTIONS: Final = {
    each.act.__name__: each
    for each in (
        Action(wait, 5),
        Action(wait_long, 2),
        Action(record, 3, {Cause.RECORDED}),
        Action(provision, 1, {Cause.PROVISIONED}),
        Action(reprovision, 2, {Cause.PROVISIONED}, lambda world: world.reference.accounts),
        Action(delete_customer, 1, possible=lambda world: world.reference.accounts),
        Action(
            record_while_provisioning, 1, {Cause.RECORDED, Cause.PROVISIONED}, possible=_strangers
        ),
        Action(claim, 2, {Cause.CLAIMED}),
        Action(sweep, 2, {Cause.SWEPT}),
        Action(lease, 2, possible=lambda world: world.reference.reports),
        Action(publish, 3, {Cause.FORWARDED}, lambda world: world.leases),
        Action(deliver, 6, {Cause.CALLED}, _has_room),
        Action(go_on, 9, {Cause.CALLED, Cause.HEARD}, lambda world: world.flights),
        Action(crash, 2, possible=lambda world: world.flights),
        Action(answer, 5, {Cause.ANSWERED}, lambda world: world.outcomes),
        Action(settle_by_hand, 2, {Cause.SETTLED}, lambda world: world.in_doubt()),
    )
}


def fresh(world: World, data: st.DataObject, user: UUID) -> ToolRun:
    """Draw an event of ``user`` that was never published."""
    event = tool_run(
        user,
        event_id=UUID(int=len(world.sent)),
        time=world.now - data.draw(st.sampled_from(AGES)),
        server_id=data.draw(st.sampled_from(("one", "two"))),
        status=data.draw(st.sampled_from(("succeeded", "succeeded", "succeeded", "failed"))),
        token_count=data.draw(st.sampled_from((None, 0, 7))),
    )
    world.sent.append(event)
    return event


def _event(world: World, data: st.DataObject) -> ToolRun:
    if not world.sent or data.draw(st.integers(0, 3)):
        return fresh(world, data, data.draw(st.sampled_from(USERS)))
    known, tokens = data.draw(st.sampled_from(world.sent)), data.draw(st.sampled_from((None, 9)))
    changed = {"metadata": {"copy": True}} | ({"token_count": tokens} if tokens else {})
    return known.model_copy(update={"data": known.data.model_copy(update=changed)})


def _answer(flight: Flight, data: st.DataObject) -> Answer:
    answer = answer_of(data.draw(st.sampled_from(_possible(flight))))
    return with_new_key(answer) if data.draw(EITHER) else answer


def _possible(flight: Flight) -> list[str]:
    """Return the rows of the table that can answer a call, given what Stripe did with it."""
    lost = [row.name for row in TABLE if row.effect is Effect.UNKNOWN]
    if flight.truth is not None:
        return [flight.truth] * len(lost) + lost
    own = {"no_such_customer", "too_old"}  # of these Stripe decides, and only if it is reached
    unmoved = (row for row in TABLE if row.effect is Effect.NOT_APPLIED and row.name not in own)
    return [*lost, *(row.name for row in unmoved), *["refused"] * len(lost)]
