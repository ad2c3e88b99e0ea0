"""What usage-ingest does with each kind of message. No handler acks: it returns what happened."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Final

import structlog
from faststream import Context

from nexus_contracts import (
    TOOL_EXECUTED_VERSIONS,
    ContractError,
    CustomerProvisioned,
    Event,
    SubscriptionChanged,
    SubscriptionsRead,
    UsageCounted,
    UsageRejectedLaterV1,
    UsageRejectedV1,
    UsageReportedV1,
    UserAssigned,
    read_event,
)
from nexus_database import RowRefusedError, RowsBusyError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.message import Delivery
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, Failed, Outcome
from nexus_messaging.router import Router
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    SUBSCRIPTION_CHANGED_QUEUE,
    TOOL_EXECUTED_QUEUE,
    USAGE_COUNTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USER_ASSIGNED_QUEUE,
)
from nexus_service.periodic import Periodic
from nexus_service.work import Work
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, BillingState, is_from_the_future
from usage_ingest.metrics import UNREADABLE, IngestMetrics
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.ledger import (
    DetailsAdded,
    DetailsTaken,
    Duplicate,
    HeldByNewer,
    IdTaken,
    Ledger,
    Recorded,
    Result,
)
from usage_ingest.storage.periods import Periods
from usage_ingest.storage.reports import Applied, ReportAnswer, Reports
from usage_ingest.storage.subscriptions import Subscriptions

PREFETCH: Final = 2000
"""Four batches: one that is committed, and the others at hand."""

PREFETCH_CUSTOMERS: Final = 20

ANSWERS: Final[Sequence[type[UsageReportedV1 | UsageRejectedV1 | UsageRejectedLaterV1]]] = (
    UsageReportedV1,
    UsageRejectedV1,
    UsageRejectedLaterV1,
)


BACKLOG: Final = 100
"""Runs in one batch, which arrived while the batch before was recorded, from which on more are
expected: a backlog. Windows that are claimed after it have fewer reports."""

log = structlog.get_logger()

router = Router()


@router.batch_subscriber(TOOL_EXECUTED_QUEUE, *TOOL_EXECUTED_VERSIONS, prefetch=PREFETCH)
async def record_usage(
    batch: Sequence[Delivery],
    ledger: Annotated[Ledger, Context()],
    rules: Annotated[BillingRules, Context()],
    metrics: Annotated[IngestMetrics, Context()],
    recording: Annotated[Work, Context()],
    claim: Annotated[Periodic, Context()],
    now: Annotated[Callable[[], datetime], Context()],
) -> Sequence[Outcome]:
    """Record tool runs in the ledger, a batch in one transaction.

    Raises:
        PermanentError: one row of the batch can never be stored; nothing was recorded.
        RowsBusyError: another transaction holds one of the rows; nothing was recorded.
        DatabaseUnavailableError: nothing was recorded.
    """
    read = await _read_runs(batch, rules, now())
    entries = [each for each in read if isinstance(each, Entry)]

    results: Sequence[Result] = []
    if entries:
        results = await _record(entries, ledger, metrics, recording)
        found = Counter(map(_found, results))
        if found[BillingState.DUE.value]:
            claim.wake(more_comes=len(batch) >= BACKLOG)
        new = [e for e, result in zip(entries, results, strict=True) if _is_new(result)]
        metrics.recorded(found, new, now())

    remaining = iter(results)
    outcomes: list[Outcome] = []
    for each in read:
        if isinstance(each, Entry):
            outcomes.append(_outcome(each, next(remaining)))
        else:
            metrics.refused(each.reason.value if isinstance(each, PermanentError) else UNREADABLE)
            outcomes.append(Failed(each))
    return outcomes


async def _read_runs(
    batch: Sequence[Delivery], rules: BillingRules, now: datetime
) -> Sequence[Entry | Exception]:
    """Read each delivery, and let other tasks run after one that was slow to read.

    A body that no parser can read takes up to half a second of processor time.
    """
    read: list[Entry | Exception] = []
    for delivery in batch:
        each = _read_run(delivery, rules, now)
        read.append(each)
        if not isinstance(each, Entry) or each.metadata_left_out:
            await asyncio.sleep(0)
    return read


def _read_run(delivery: Delivery, rules: BillingRules, now: datetime) -> Entry | Exception:
    try:
        event = read_event(delivery.body, TOOL_EXECUTED_VERSIONS)
    except ContractError as error:
        return error
    if is_from_the_future(event.time, now):
        ahead = (event.time - now).total_seconds()
        return PermanentError(Reason.TIMESTAMP_IN_FUTURE, f"time: {ahead:.0f} s ahead of our clock")
    return Entry.of(event, rules, now)


async def _record(
    entries: Sequence[Entry], ledger: Ledger, metrics: IngestMetrics, recording: Work
) -> Sequence[Result]:
    try:
        with recording.round(RowRefusedError, RowsBusyError):
            return await ledger.record(entries)
    except RowRefusedError as refused:
        # The consumer halves a larger batch until this row is alone.
        if len(entries) == 1:
            metrics.refused(Reason.UNSTORABLE.value)
        raise PermanentError(Reason.UNSTORABLE, str(refused)) from None


def _is_new(result: Result) -> bool:
    return isinstance(result, Recorded)


def _found(result: Result) -> str:
    """Return the label of the metric that counts events by what recording them found."""
    match result:
        case Recorded(state):
            return state.value
        case DetailsAdded():
            return "details_added"
        case Duplicate():
            return "duplicate"
        case IdTaken() | DetailsTaken():
            return "id_taken"
        case HeldByNewer():
            return "held_by_newer"


def _outcome(entry: Entry, result: Result) -> Outcome:
    match result:
        case Recorded() | DetailsAdded() | Duplicate():
            return Done(entry.event.source)
        case HeldByNewer():
            return Failed(TransientError("id: a later release recorded it, and can compare it"))
        case IdTaken(source):
            text = f"id: another event of source {source!r} has it"
            return Failed(PermanentError(Reason.EVENT_ID_TAKEN, text))
        case DetailsTaken():
            text = "data: the run was recorded with another model or other tokens by kind"
            return Failed(PermanentError(Reason.EVENT_ID_TAKEN, text))


@router.subscriber(CUSTOMER_PROVISIONED_QUEUE, prefetch=PREFETCH_CUSTOMERS)
async def keep_account(
    event: Event[CustomerProvisioned],
    accounts: Annotated[Accounts, Context()],
    claim: Annotated[Periodic, Context()],
) -> Outcome:
    """Store an account's customer, and claim the usage that waited for it.

    Raises:
        RowsBusyError: another transaction holds the account; nothing was stored.
        DatabaseUnavailableError: nothing was stored.
    """
    await accounts.apply(event.data)
    claim.wake()
    return Done()


@router.subscriber(USER_ASSIGNED_QUEUE, prefetch=PREFETCH_CUSTOMERS)
async def keep_assignment(
    event: Event[UserAssigned],
    accounts: Annotated[Accounts, Context()],
    claim: Annotated[Periodic, Context()],
) -> Outcome:
    """Store whose account pays for a user, and claim the usage that waited for another one.

    Raises:
        RowsBusyError: another transaction stores it; nothing was stored.
        DatabaseUnavailableError: nothing was stored.
    """
    await accounts.assign(event.data)
    claim.wake()
    return Done()


@router.subscriber(SUBSCRIPTION_CHANGED_QUEUE, prefetch=PREFETCH_CUSTOMERS)
async def keep_subscription(
    event: Event[SubscriptionChanged] | Event[SubscriptionsRead],
    subscriptions: Annotated[Subscriptions, Context()],
    periods: Annotated[Periods, Context()],
    metrics: Annotated[IngestMetrics, Context()],
) -> Outcome:
    """Store an account's subscription, and the plan and the periods that it has by it.

    Or store that all subscriptions were read: an account without any has none. After either,
    reports may have to be placed again.

    Raises:
        RowsBusyError: another transaction stores one; nothing was stored.
        DatabaseUnavailableError: nothing was stored, or not all is queued; both are repeated.
    """
    match event.data:
        case SubscriptionChanged() as changed:
            if not await subscriptions.apply(changed):
                metrics.subscription_outdated()
            await periods.place_again(changed)
        case SubscriptionsRead() as read:
            await periods.keep_read(read)
            await periods.place_unknown()
    return Done()


@router.subscriber(USAGE_COUNTED_QUEUE, prefetch=PREFETCH_CUSTOMERS)
async def compare_counted(
    event: Event[UsageCounted],
    counted: Annotated[CountedSums, Context()],
    metrics: Annotated[IngestMetrics, Context()],
) -> Outcome:
    """Compare Stripe's sums with the ledger, and keep each difference until it is none any more.

    Raises:
        RowsBusyError: another reading of the same sums is being stored; nothing was stored.
        DatabaseUnavailableError: nothing was stored.
    """
    compared = await counted.apply(event.data)
    metrics.compared(compared)
    for each in compared.opened:
        log.warning(
            "difference_found",
            customer=event.data.stripe_customer_id,
            meter=event.data.meter,
            hour=each.hour.isoformat(),
            kind=each.kind.value,
            expected=each.expected,
            counted=each.counted,
        )
    return Done()


@router.batch_subscriber(USAGE_OUTCOMES_QUEUE, *ANSWERS, prefetch=PREFETCH)
async def apply_outcomes(
    batch: Sequence[Delivery],
    reports: Annotated[Reports, Context()],
    metrics: Annotated[IngestMetrics, Context()],
    applying: Annotated[Work, Context()],
) -> Sequence[Outcome]:
    """Apply the reporter's answers to reports, a batch in one transaction.

    Raises:
        RowsBusyError: another transaction holds one of the reports; nothing was applied.
        DatabaseUnavailableError: nothing was applied.
    """
    read = [_read_answer(delivery) for delivery in batch]
    answers = [each for each in read if isinstance(each, ReportAnswer)]
    applied = Applied({}, {}, set())
    if answers:
        with applying.round(RowsBusyError):
            applied = await reports.answer(answers)
    metrics.answered(applied.states, applied.reported)

    outcomes: list[Outcome] = []
    for each in read:
        if isinstance(each, Exception):
            outcomes.append(Failed(each))
        elif each.report_id in applied.unknown:
            text = "report_id: not in the ledger"
            outcomes.append(Failed(PermanentError(Reason.UNKNOWN_REPORT, text)))
        else:
            outcomes.append(Done())
    return outcomes


def _read_answer(delivery: Delivery) -> ReportAnswer | Exception:
    try:
        event = read_event(delivery.body, ANSWERS)
    except ContractError as error:
        return error
    return ReportAnswer.of(event.data)
