"""Whether usage makes its way to Stripe, decided from what the ledger and the broker say. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from nexus_broker_admin.depths import Depths
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    METER_ERRORS_QUEUE,
    RETIRED_TIERS,
    STRIPE_CHANGED_QUEUE,
    SUBSCRIPTION_CHANGED_QUEUE,
    TIERS,
    TOOL_EXECUTED_QUEUE,
    UNROUTABLE,
    USAGE_COUNTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_ASSIGNED_QUEUE,
    USER_CREATED_QUEUE,
    USER_UPDATED_QUEUE,
    dead_letter_queue,
)
from nexus_service.console import Finding, Row, Tone, format_age
from usage_ingest.stripes_word import StripesWord, word_findings

LEDGER_TITLES: Final = ("of", "state", "meter", "number", "sum", "oldest")
QUEUE_TITLES: Final = ("queue", "waiting", "consumers", "dead letters")


UNFINISHED: Final = {"due", "pending", "forwarded"}
"""The states of events and of reports that end without anybody's doing."""

REFUSED: Final = {"rejected", "rejected_later"}
"""The states of reports that a person has to look at."""

FINISHED: Final = ("reported", "shadow")
"""The states of reports that are added up from the newest on."""

MAX_COUNTED: Final = 100_000
"""More rows of a state than this are shown as this many: by then their age matters more."""

MAX_SUMMED: Final = 5_000
"""Rows of an unfinished state that are added up by meter: each is read from its table."""

MAX_REPORTED: Final = 20_000
"""Reported reports, the newest, that are added up unless all are asked for."""


@dataclass(frozen=True, slots=True)
class StateCount:
    """The number of rows of a state and a meter, their sum, and the time of the oldest.

    With ``more``, only some rows of that state were read: the newest ``MAX_REPORTED`` of a
    finished one, ``MAX_SUMMED`` of an unfinished state, from the oldest on except of the refused.
    ``total`` is how many rows an unfinished state has, at most ``MAX_COUNTED``.
    """

    state: str
    meter: str
    number: int
    value: int
    oldest: datetime
    total: int | None
    more: bool

    @classmethod
    def of(cls, row: Mapping[Any, Any], total: int) -> "StateCount":
        """Return the count in a row of an unfinished state that has ``total`` rows."""
        return cls(**row, total=total, more=total > MAX_SUMMED)


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """What is unfinished by state, and what was reported, or made as shadow reports, ``since``.

    ``newest`` is about when the last usage was recorded, a few seconds late at the most; runs that
    are not billable do not count. ``stripe``: what became of what was reported.
    """

    since: datetime
    events: tuple[StateCount, ...]
    reports: tuple[StateCount, ...]
    newest: datetime | None
    stripe: StripesWord

    def oldest_unfinished(self, now: datetime) -> timedelta:
        """Return the age of the oldest event or report that Stripe has not answered.

        Usage that waits for a customer is left out.
        """
        oldest = (e.oldest for e in (*self.events, *self.reports) if e.state in UNFINISHED)
        return max((now - each for each in oldest), default=timedelta(0))


@dataclass(frozen=True, slots=True)
class Stage:
    """A step on the way of usage: its queue, the service that consumes it, why that may stop."""

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
    Stage("learning who pays for whom", USER_ASSIGNED_QUEUE, _INGEST, _OUTAGE),
    Stage("learning of subscriptions", SUBSCRIPTION_CHANGED_QUEUE, _INGEST, _OUTAGE),
    Stage("making customers", USER_CREATED_QUEUE, "customer-provisioner", _STRIPE),
    Stage("updating customers", USER_UPDATED_QUEUE, "customer-provisioner", _STRIPE),
    Stage("following Stripe", STRIPE_CHANGED_QUEUE, "customer-provisioner", _STRIPE),
    Stage("hearing of rejections", METER_ERRORS_QUEUE, "stripe-reporter", _STRIPE),
    Stage("comparing with Stripe's sums", USAGE_COUNTED_QUEUE, _INGEST, _OUTAGE),
)

_TIERS: Final = tuple(tier.name for tier in (*TIERS, *RETIRED_TIERS))

QUEUES: Final = (
    *(stage.queue for stage in STAGES),
    *(dead_letter_queue(stage.queue) for stage in STAGES),
    *_TIERS,
    UNROUTABLE,
)
"""The queues whose depths are read. A retired tier may still hold messages."""


def findings(
    counts: LedgerCounts | None, depths: Depths | None, now: datetime, allowed: timedelta
) -> list[Finding]:
    """Return what is wrong and what is right, in the order of the stages.

    Args:
        counts: The counts of events and reports; ``None`` if the ledger does not answer.
        depths: The depths of the queues; ``None`` if the broker was not asked or does not answer.
        now: The time.
        allowed: How long usage may be unanswered, and messages may wait while none is recorded.
    """
    found: list[Finding] = []
    if depths is not None:
        found += [_stage(stage, counts, depths, now, allowed) for stage in STAGES]
        found += _dead_letters(depths)
        if depths.management_fault is not None:
            text = f"messages in consumers' hands were not counted: {depths.management_fault}"
            found.append(Finding("management API", text, Tone.NOTE))
    if counts is not None:
        stopped = any(each.tone is Tone.BAD for each in found)
        found.append(_oldest(counts.oldest_unfinished(now), allowed, stopped=stopped))
        for state in FINISHED:
            if any(each.state == state and each.more for each in counts.reports):
                text = f"only the newest {MAX_REPORTED:,} were added up; with --days all are"
                found.append(Finding(state, text, Tone.NOTE))
        if any(each.state == "shadow" for each in counts.reports):
            text = "reported by the way before this one; never sent (REPORTING_LIVE_FROM)"
            found.append(Finding("shadow", text, Tone.NOTE))
        found += word_findings(counts.stripe, now)
    return found


def ledger_rows(counts: LedgerCounts, now: datetime, allowed: timedelta) -> Sequence[Row]:
    """Return a row for each state and meter of events and of reports.

    Rows that are unanswered for longer than ``allowed``, or that a person must settle, stand out.
    """
    return [
        *(_ledger_row("events", each, now, allowed) for each in counts.events),
        *(_ledger_row("reports", each, now, allowed) for each in counts.reports),
    ]


def _ledger_row(of: str, each: StateCount, now: datetime, allowed: timedelta) -> Row:
    age, state = now - each.oldest, each.state
    if each.more and each.total is None:
        state += f", newest {MAX_REPORTED:,}"
    elif each.more:
        reached = "+" if each.total == MAX_COUNTED else ""
        state += f", {MAX_SUMMED:,} of {each.total:,}{reached}"
    shown_age = None if each.state in FINISHED else age
    tone = Tone.BAD if each.state in UNFINISHED and age > allowed else Tone.PLAIN
    cells = (of, state, each.meter, each.number, each.value, shown_age)
    return Row(cells, Tone.NOTE if each.state in REFUSED else tone)


def queue_rows(depths: Depths) -> Sequence[Row]:
    """Return a row for each queue with a consumer, and for each retry tier."""
    rows = []
    for stage in STAGES:
        if (depth := depths.queues.get(stage.queue)) is not None:
            letters = depths.queues.get(dead_letter_queue(stage.queue))
            dead = None if letters is None else letters.waiting
            tone = Tone.PLAIN if depth.consumers and not dead else Tone.BAD
            rows.append(Row((stage.queue, depth.waiting, depth.consumers, dead), tone))
    tiers = (tier for tier in _TIERS if tier in depths.queues)
    return [*rows, *(Row((tier, depths.queues[tier].waiting, None, None)) for tier in tiers)]


def _stage(
    stage: Stage, counts: LedgerCounts | None, depths: Depths, now: datetime, allowed: timedelta
) -> Finding:
    depth = depths.queues.get(stage.queue)
    if depth is None:
        text = f"the queue {stage.queue} is missing: run nexus-topology apply"
        return Finding(stage.name, text, Tone.BAD)
    waiting = f"{depth.waiting} waiting in {stage.queue}"
    idle, since = timedelta(0), ""
    if stage.queue == TOOL_EXECUTED_QUEUE and counts is not None and counts.newest is not None:
        idle = now - counts.newest
        since = f", nothing was recorded for {format_age(idle)}"
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


def _dead_letters(depths: Depths) -> Iterator[Finding]:
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
    retried = {tier: depths.queues[tier].waiting for tier in _TIERS if tier in depths.queues}
    if any(retried.values()):
        text = ", ".join(f"{number} in {tier}" for tier, number in retried.items() if number)
        yield Finding("retries", f"waiting to be tried again: {text}", Tone.NOTE)


def _oldest(late: timedelta, allowed: timedelta, *, stopped: bool) -> Finding:
    """Judge the age of the oldest unanswered usage.

    While a stage has ``stopped``, usage that is not recorded yet may be older.
    """
    name, text = "oldest unanswered usage", f"{late.total_seconds():.0f} s"
    if late > allowed:
        text += f", more than {allowed.total_seconds():.0f} s: degraded"
        return Finding(name, text, Tone.BAD)
    return (
        Finding(name, f"{text}, of what is recorded", Tone.NOTE) if stopped else Finding(name, text)
    )
