"""Whether usage is on its way to Stripe, from what ledger and broker answered: pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from nexus_broker_admin.depths import Depths
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_CREATED_QUEUE,
    dead_letter_queue,
)
from nexus_service.console import Finding, Row, Tone, human
from usage_ingest.inquiries import Standing

TITLES: Final = ("queue", "waiting", "consumers", "dead letters")


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of usage's way: its ``name``, its queue, whose it is, and what may have stopped it."""

    name: str
    queue: str
    service: str
    stopped_by: str


_INGEST: Final = "usage-ingest"
_OUTAGE: Final = "it waits for its database, or stopped for a flood of bad messages"
_STRIPE: Final = f"its circuit breaker is open, {_OUTAGE}"

STAGES: Final = (
    Stage("recording", TOOL_EXECUTED_QUEUE, _INGEST, _OUTAGE),
    Stage("reporting", USAGE_RECORDED_QUEUE, "stripe-reporter", _STRIPE),
    Stage("applying answers", USAGE_OUTCOMES_QUEUE, _INGEST, _OUTAGE),
    Stage("learning of customers", CUSTOMER_PROVISIONED_QUEUE, _INGEST, _OUTAGE),
    Stage("making customers", USER_CREATED_QUEUE, "customer-provisioner", _STRIPE),
)

QUEUES: Final = (
    *(stage.queue for stage in STAGES),
    *(dead_letter_queue(stage.queue) for stage in STAGES),
    *(tier.name for tier in TIERS),
    UNROUTABLE,
)
"""All that is looked at."""


def findings(
    standing: Standing | None, depths: Depths | None, now: datetime, allowed: timedelta
) -> list[Finding]:
    """Return what is wrong and what is right, in the order of usage's way.

    Args:
        standing: How events and reports stand; nothing if the ledger can't be asked.
        depths: What waits at the broker; nothing if it was not, or can't be, asked.
        now: The time.
        allowed: How long usage may be unanswered, and messages wait while none is recorded.
    """
    found: list[Finding] = []
    if depths is not None:
        found += [_of_stage(stage, standing, depths, now, allowed) for stage in STAGES]
        found += _of_letters(depths)
        if depths.unasked is not None:
            text = f"messages in consumers' hands were not counted: {depths.unasked}"
            found.append(Finding("management API", text, Tone.NOTE))
    if standing is not None:
        halted = any(each.tone is Tone.BAD for each in found)
        found.append(_of_age(standing.oldest_unfinished(now), allowed, halted=halted))
    return found


def queue_rows(depths: Depths) -> Sequence[Row]:
    """Return what waits in each queue with a consumer, and in each retry tier."""
    rows = []
    for stage in STAGES:
        if (depth := depths.queues.get(stage.queue)) is not None:
            letters = depths.queues.get(dead_letter_queue(stage.queue))
            dead = None if letters is None else letters.waiting
            tone = Tone.PLAIN if depth.consumers and not dead else Tone.BAD
            rows.append(Row((stage.queue, depth.waiting, depth.consumers, dead), tone))
    tiers = (tier.name for tier in TIERS if tier.name in depths.queues)
    return [*rows, *(Row((tier, depths.queues[tier].waiting, None, None)) for tier in tiers)]


def _of_stage(
    stage: Stage, standing: Standing | None, depths: Depths, now: datetime, allowed: timedelta
) -> Finding:
    depth = depths.queues.get(stage.queue)
    if depth is None:
        text = f"the queue {stage.queue} is missing: run nexus-topology apply"
        return Finding(stage.name, text, Tone.BAD)
    waiting = f"{depth.waiting} waiting in {stage.queue}"
    idle, since = timedelta(0), ""
    if stage.queue == TOOL_EXECUTED_QUEUE and standing is not None and standing.newest is not None:
        idle = now - standing.newest
        since = f", nothing was recorded for {human(idle)}"
    if not depth.consumers:
        text = f"stands still{since}: {waiting}, no consumer: {_cause(stage, depths)}"
        return Finding(stage.name, text, Tone.BAD)
    if depth.waiting and idle > allowed:
        return Finding(stage.name, f"stands still{since}: {waiting}, with a consumer", Tone.BAD)
    return Finding(stage.name, f"{waiting}, {depth.consumers} consuming")


def _cause(stage: Stage, depths: Depths) -> str:
    if depths.connected is None:
        return (
            f"{stage.service} does not run, or {stage.stopped_by}; see /readyz of {stage.service}"
        )
    if stage.service in depths.connected:
        return f"{stage.service} runs, so {stage.stopped_by}; see /readyz of {stage.service}"
    return f"{stage.service} does not run, as it has no connection"


def _of_letters(depths: Depths) -> Iterator[Finding]:
    dead = {
        queue: depth.waiting
        for queue, depth in depths.queues.items()
        if depth.waiting and (queue == UNROUTABLE or queue.endswith(dead_letter_queue("")))
    }
    if dead:
        text = ", ".join(f"{number} in {queue}" for queue, number in dead.items())
        yield Finding("dead letters", f"{text}: docs/requeue.md says what to do", Tone.BAD)
    else:
        yield Finding("dead letters", "none")
    tiers = {tier.name for tier in TIERS} & depths.queues.keys()
    retried = {name: depths.queues[name].waiting for name in sorted(tiers)}
    if any(retried.values()):
        text = ", ".join(f"{number} in {tier}" for tier, number in retried.items() if number)
        yield Finding("retries", f"waiting to be tried again: {text}", Tone.NOTE)


def _of_age(late: timedelta, allowed: timedelta, *, halted: bool) -> Finding:
    """Judge the oldest unanswered usage; its youth is no comfort while something is ``halted``."""
    name, text = "oldest unanswered usage", f"{late.total_seconds():.0f} s"
    if late > allowed:
        text += f", more than {allowed.total_seconds():.0f} s: degraded"
        return Finding(name, text, Tone.BAD)
    return (
        Finding(name, f"{text}, of what is recorded", Tone.NOTE) if halted else Finding(name, text)
    )
