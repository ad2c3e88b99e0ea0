"""The actions of the state machine, and how often each is drawn."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from hypothesis import strategies as st

from model.delivery import ReportDelivery, answer_of, with_new_key
from model.later_actions import (
    compare_sums,
    give_back,
    hear,
    lose,
    may_be_read,
    read_sums,
    report_otherwise,
    settle_rejections,
)
from model.system import START, Fate, System, Work
from model.transitions import Cause
from nexus_contracts import TOOL_EXECUTED_VERSIONS, Event
from nexus_stripe.answer_classes import Effect
from nexus_stripe.answers import StripeAnswer
from stripe_reporter.stripe.responses import TABLE
from support.events import tool_run
from usage_ingest.metering import ToolRun

USERS: Final = tuple(UUID(int=number) for number in (1, 2, 3))
ACCOUNTS: Final = (*USERS, UUID(int=101))
"""The users' own, and a team's."""

MAX_DELIVERIES: Final = 3

SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
YOUNG: Final = (0 * SECOND, 3 * SECOND, 12 * SECOND, 2 * HOUR)
AGES: Final = (*YOUNG, *YOUNG, *YOUNG, 35 * DAY - HOUR, 35 * DAY)
SHORT: Final = tuple(number * SECOND for number in (1, 4, 11, 21, 21, 61))
HOURS: Final = (HOUR, 22 * HOUR, 24 * HOUR)
LONG: Final = (*HOURS, *HOURS, *HOURS, *HOURS, 34 * DAY)  # after which every event is old

EITHER: Final = st.booleans()
LIKELY: Final = st.sampled_from((True, True, True, False))


@dataclass(frozen=True)
class Action:
    """Something that may happen: ``act`` draws its arguments and returns the work."""

    act: Callable[[System, st.DataObject], Work]
    weight: int
    causes: AbstractSet[Cause] = field(default_factory=frozenset)
    possible: Callable[[System], object] = lambda _: True


def _users_without_account(system: System) -> list[UUID]:
    return [each for each in USERS if each not in system.reference.accounts]


def _has_room(system: System) -> bool:
    return bool(system.messages) and len(system.deliveries) < MAX_DELIVERIES


def record(system: System, data: st.DataObject) -> Work:
    """Record a batch of events: new ones, duplicates, or other events with a known id."""
    return system.record([_event(system, data) for _ in range(data.draw(st.integers(1, 3)))])


def provision(system: System, data: st.DataObject) -> Work:
    """Announce an account's former, known or next customer."""
    account, step = data.draw(st.sampled_from(ACCOUNTS)), data.draw(st.sampled_from((1, 0, -1)))
    generation, _ = system.reference.accounts.get(account, (0, ""))
    return system.provision(account, max(1, generation + step))


def assign(system: System, data: st.DataObject) -> Work:
    """Let an account pay for a user, from now on, from a time before or from a time to come."""
    return system.assign(*_assignment(system, data))


def record_while_assigning(system: System, data: st.DataObject) -> Work:
    """Record a user's events in a transaction that is open while the assignment comes."""
    user, since, account = _assignment(system, data)
    batch = [fresh(system, data, user) for _ in range(2)]
    return system.record_while_assigning(user, since, account, batch)


def claim_while_assigning(system: System, data: st.DataObject) -> Work:
    """Claim in a transaction that is open while the assignment comes."""
    return system.claim_while_assigning(*_assignment(system, data))


def _assignment(system: System, data: st.DataObject) -> tuple[UUID, datetime, UUID]:
    age = data.draw(st.sampled_from((*YOUNG, -12 * SECOND, DAY)))
    user, account = data.draw(st.sampled_from(USERS)), data.draw(st.sampled_from(ACCOUNTS))
    return user, system.now - age, account


def reprovision(system: System, data: st.DataObject) -> Work:
    """Delete a user's customer at Stripe and announce the next one."""
    user = data.draw(st.sampled_from(list(system.reference.accounts)))
    return system.reprovision(user)


def delete_customer(system: System, data: st.DataObject) -> Work:
    """Delete a customer at Stripe."""
    accounts = sorted(system.reference.accounts.values())
    return system.delete_customer(data.draw(st.sampled_from(accounts))[1])


def record_while_provisioning(system: System, data: st.DataObject) -> Work:
    """Record a user's events in a transaction that is open while the account comes."""
    user = data.draw(st.sampled_from(_users_without_account(system)))
    return system.record_while_provisioning(user, [fresh(system, data, user) for _ in range(2)])


def claim(system: System, data: st.DataObject) -> Work:
    """Claim, or have two claim at the same moment."""
    return system.claim(at_once=data.draw(EITHER))


def move_moment(system: System, data: st.DataObject) -> Work:
    """Restart with another moment before which usage is reported in another way, or with none."""
    since = [system.now - age for age in (*YOUNG, -5 * SECOND, -2 * HOUR)]
    return system.move_moment(data.draw(st.sampled_from((None, START + 5 * SECOND, *since))))


def sweep(system: System, _: st.DataObject) -> Work:
    """Sweep."""
    return system.sweep()


def lease(system: System, data: st.DataObject) -> Work:
    """Lease what is pending, or have two do so at the same moment."""
    return system.lease(at_once=data.draw(EITHER))


def publish(system: System, data: st.DataObject) -> Work:
    """Publish a lease, and mark it unless the process dies before.

    A lease may be published again after its end, by a process that was suspended.
    """
    leased = data.draw(st.sampled_from(system.leases))
    fates = [data.draw(st.sampled_from((Fate.CONFIRMED, *Fate))) for _ in leased]
    return system.publish(leased, fates, marked=data.draw(EITHER))


def deliver(system: System, data: st.DataObject) -> Work:
    """Deliver a report up to its call, which Stripe receives or not, or to just before it."""
    copies = [delivery.key for delivery in system.deliveries] * 2
    key = data.draw(st.sampled_from([*system.messages, *copies]))
    return system.deliver(key, reaches=data.draw(EITHER), calls=data.draw(LIKELY))


def go_on(system: System, data: st.DataObject) -> Work:
    """Let a halted delivery go on: into its call, or with an answer."""
    delivery = data.draw(st.sampled_from(system.deliveries))
    published = delivery.published
    published.arrives, published.confirmed = data.draw(LIKELY), data.draw(LIKELY)
    return system.go_on(delivery, _answer(delivery, data) if delivery.place == "called" else None)


def crash(system: System, data: st.DataObject) -> Work:
    """Let the process of a halted delivery die."""
    return system.crash(data.draw(st.sampled_from(system.deliveries)))


def answer(system: System, data: st.DataObject) -> Work:
    """Apply a batch of outcomes in any order, repeated or not."""
    batch = st.lists(st.sampled_from(system.outcomes), min_size=1, max_size=3)
    return system.answer(data.draw(batch))


def settle_by_hand(system: System, data: st.DataObject) -> Work:
    """Have an operator look for a report at Stripe and settle it."""
    return system.settle_by_hand(data.draw(st.sampled_from(system.in_doubt())))


def wait(system: System, data: st.DataObject) -> Work:
    """Let seconds pass."""
    return system.wait(data.draw(st.sampled_from(SHORT)))


def wait_long(system: System, data: st.DataObject) -> Work:
    """Let hours or weeks pass."""
    return system.wait(data.draw(st.sampled_from(LONG)))


ACTIONS: Final = {
    each.act.__name__: each
    for each in (
        Action(wait, 5),
        Action(wait_long, 2),
        Action(record, 3, {Cause.RECORDED}),
        Action(provision, 1, {Cause.PROVISIONED}),
        Action(reprovision, 2, {Cause.PROVISIONED}, lambda system: system.reference.accounts),
        Action(delete_customer, 1, possible=lambda system: system.reference.accounts),
        Action(
            record_while_provisioning,
            1,
            {Cause.RECORDED, Cause.PROVISIONED},
            possible=_users_without_account,
        ),
        Action(assign, 2, {Cause.ASSIGNED}),
        Action(record_while_assigning, 1, {Cause.RECORDED, Cause.ASSIGNED}),
        Action(claim_while_assigning, 1, {Cause.CLAIMED, Cause.ASSIGNED}),
        Action(claim, 2, {Cause.CLAIMED}),
        Action(move_moment, 1),
        Action(sweep, 2, {Cause.SWEPT}),
        Action(lease, 2, possible=lambda system: system.reference.reports),
        Action(publish, 3, {Cause.FORWARDED}, lambda system: system.leases),
        Action(deliver, 6, {Cause.CALLED}, _has_room),
        Action(go_on, 9, {Cause.CALLED, Cause.HEARD}, lambda system: system.deliveries),
        Action(crash, 2, possible=lambda system: system.deliveries),
        Action(answer, 5, {Cause.ANSWERED}, lambda system: system.outcomes),
        Action(give_back, 1, possible=System.may_be_given_back),
        Action(hear, 2, possible=System.samples),
        Action(settle_rejections, 2, {Cause.LATER}, lambda system: system.heard),
        Action(lose, 1, possible=System.may_be_given_back),
        Action(report_otherwise, 2, possible=may_be_read),
        Action(read_sums, 3, possible=may_be_read),
        Action(compare_sums, 3, possible=lambda system: system.readings),
        Action(settle_by_hand, 2, {Cause.SETTLED}, lambda system: system.in_doubt()),
    )
}


def fresh(system: System, data: st.DataObject, user: UUID) -> ToolRun:
    """Draw an event of ``user`` that was never published."""
    event = tool_run(
        user,
        event_id=UUID(int=len(system.sent)),
        time=data.draw(st.sampled_from(_times(system))),
        server_id=data.draw(st.sampled_from(("one", "two"))),
        status=data.draw(st.sampled_from(("succeeded", "succeeded", "succeeded", "failed"))),
        token_count=data.draw(st.sampled_from((None, 0, 7))),
        kind=data.draw(st.sampled_from(TOOL_EXECUTED_VERSIONS)),
    )
    system.sent.append(event)
    return event


def _times(system: System) -> list[datetime]:
    """Return the times of runs: of several ages, and about the moment of going live."""
    moment = system.reference.live_from or system.now
    about = [each for each in (moment - SECOND, moment) if each <= system.now]
    return [*(system.now - age for age in AGES), *about, *about, *about]


def _event(system: System, data: st.DataObject) -> ToolRun:
    if not system.sent or data.draw(st.integers(0, 3)):
        return fresh(system, data, data.draw(st.sampled_from(USERS)))
    known, tokens = data.draw(st.sampled_from(system.sent)), data.draw(st.sampled_from((None, 9)))
    fields = known.data.model_dump() | {"metadata": {"copy": True}}
    fields |= {"token_count": tokens} if tokens else {}
    fields |= {"model": data.draw(st.sampled_from((None, "large")))}
    kind = data.draw(st.sampled_from(TOOL_EXECUTED_VERSIONS))
    return Event.of(kind(**fields), source=known.source, id=known.id, time=known.time)


def _answer(delivery: ReportDelivery, data: st.DataObject) -> StripeAnswer:
    answer = answer_of(data.draw(st.sampled_from(_possible(delivery))))
    return with_new_key(answer) if data.draw(EITHER) else answer


def _possible(delivery: ReportDelivery) -> list[str]:
    """Return the rows of the table that can answer a call, given what Stripe did with it."""
    lost = [row.name for row in TABLE if row.effect is Effect.UNKNOWN]
    if delivery.truth is not None:
        return [delivery.truth] * len(lost) + lost
    own = {"no_such_customer", "too_old"}  # Stripe itself decides on these, if it is reached
    unmoved = (row for row in TABLE if row.effect is Effect.NOT_APPLIED and row.name not in own)
    return [*lost, *(row.name for row in unmoved), *["refused"] * len(lost)]
