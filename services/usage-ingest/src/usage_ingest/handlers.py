"""What usage-ingest does with each kind of message; none of it acks, the outcomes say what did."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from faststream import Context

from nexus_contracts import (
    ContractError,
    CustomerProvisioned,
    Event,
    ToolExecuted,
    UsageRejectedV1,
    UsageReportedV1,
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
    TOOL_EXECUTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
)
from nexus_service.periodic import Periodic
from nexus_service.work import Work
from usage_ingest.accounts import Accounts
from usage_ingest.ledger import Duplicate, Entry, HeldByNewer, IdTaken, Ledger, Recorded, Result
from usage_ingest.metering import BillingRules, BillingState, is_from_the_future, readings
from usage_ingest.metrics import UNREADABLE, IngestMetrics
from usage_ingest.reports import Answer, Applied, Reports

Clock = Callable[[], datetime]

PREFETCH: Final = 2000
"""Four batches: one being committed, the rest at hand."""

PREFETCH_CUSTOMERS: Final = 20

ANSWERS: Final[Sequence[type[UsageReportedV1 | UsageRejectedV1]]] = (
    UsageReportedV1,
    UsageRejectedV1,
)


class UsageRecorder:
    """Records batches of `tool.executed`; ``wake`` is called when something became due."""

    def __init__(
        self,
        ledger: Ledger,
        rules: BillingRules,
        metrics: IngestMetrics,
        work: Work,
        *,
        now: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._rules = rules
        self._metrics = metrics
        self._work = work
        self._now = now
        self._wake = wake

    async def record_usage(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Record a batch of tool runs in one transaction; outcomes are carried out after it.

        Raises:
            PermanentError: one row of the batch can never be stored.
            RowsBusyError: another transaction holds one of them; nothing was recorded.
            DatabaseUnavailableError: nothing was recorded.
        """
        now = self._now()
        read = await self._read_all(batch, now)
        entries = [each for each in read if isinstance(each, Entry)]
        results = await self._recorded(entries) if entries else []
        upcoming = iter(results)
        return [
            _outcome(each, next(upcoming)) if isinstance(each, Entry) else self._refusal(each)
            for each in read
        ]

    async def _read_all(
        self, batch: Sequence[Delivery], now: datetime
    ) -> Sequence[Entry | Exception]:
        """Read each delivery, and let others work after one that was slow to read.

        A body that no parser reads takes half a second of processor time at worst.
        """
        read: list[Entry | Exception] = []
        for delivery in batch:
            each = self._read(delivery, now)
            read.append(each)
            if not isinstance(each, Entry) or each.metadata_left_out:
                await asyncio.sleep(0)
        return read

    async def _recorded(self, entries: Sequence[Entry]) -> Sequence[Result]:
        with self._work.round():
            results = await self._stored(entries)
        if isinstance(results, RowsBusyError):
            raise results
        if isinstance(results, RowRefusedError):
            if len(entries) == 1:
                self._metrics.refused(Reason.UNSTORABLE.value)
            raise PermanentError(Reason.UNSTORABLE, str(results))
        outcomes = Counter(map(_name, results))
        if outcomes[BillingState.DUE.value]:
            self._wake()
        self._count(entries, results, outcomes)
        return results

    async def _stored(
        self, entries: Sequence[Entry]
    ) -> Sequence[Result] | RowRefusedError | RowsBusyError:
        try:
            return await self._ledger.record(entries)
        except (RowRefusedError, RowsBusyError) as error:
            return error  # such a row is no sign that recording stands still

    def _count(
        self, entries: Sequence[Entry], results: Sequence[Result], outcomes: Counter[str]
    ) -> None:
        now = self._now()
        values: Counter[str] = Counter()
        delays = []
        left_out = 0
        for entry, result in zip(entries, results, strict=True):
            left_out += isinstance(result, Recorded) and entry.metadata_left_out
            if isinstance(result, Recorded) and result.state is not BillingState.EXPIRED:
                delays.append((now - entry.event.time).total_seconds())
                values.update(readings(entry.event.data, self._rules))
        self._metrics.recorded(outcomes, delays, values)
        self._metrics.metadata_left_out(left_out)

    def _read(self, delivery: Delivery, now: datetime) -> "Entry | Exception":
        try:
            event = read_event(delivery.message.body, [ToolExecuted])
        except ContractError as error:
            return error
        if is_from_the_future(event.time, now):
            return PermanentError(
                Reason.TIMESTAMP_IN_FUTURE,
                f"time: {(event.time - now).total_seconds():.0f} s ahead of our clock",
            )
        return Entry.of(event, self._rules, now)

    def _refusal(self, error: Exception) -> Outcome:
        why = error.reason.value if isinstance(error, PermanentError) else UNREADABLE
        self._metrics.refused(why)
        return Failed(error)


def _outcome(entry: Entry, result: Result) -> Outcome:
    if isinstance(result, HeldByNewer):
        return Failed(TransientError("id: held by a later release, which can tell what it is of"))
    if isinstance(result, IdTaken):
        text = f"id: another event of source {result.source!r} holds it"
        return Failed(PermanentError(Reason.EVENT_ID_TAKEN, text))
    return Done(entry.event.source)


def _name(result: Result) -> str:
    match result:
        case Recorded(state):
            return state.value
        case Duplicate():
            return "duplicate"
        case IdTaken():
            return "id_taken"
        case HeldByNewer():
            return "held_by_newer"


class OutcomeApplier:
    """Applies batches of `usage.reported` and `usage.rejected` to the reports."""

    def __init__(self, reports: Reports, metrics: IngestMetrics, work: Work) -> None:
        self._reports = reports
        self._metrics = metrics
        self._work = work

    async def apply_outcomes(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Apply a batch of answers in one transaction.

        Raises:
            RowsBusyError: another transaction holds one of their reports; nothing was applied.
            DatabaseUnavailableError: nothing was applied.
        """
        read = [self._read(delivery) for delivery in batch]
        answers = [each for each in read if isinstance(each, Answer)]
        strangers = await self._applied(answers) if answers else set()
        outcomes: list[Outcome] = []
        for each in read:
            if isinstance(each, Exception):
                outcomes.append(Failed(each))
            elif each.report_id in strangers:
                outcomes.append(
                    Failed(PermanentError(Reason.UNKNOWN_REPORT, "report_id: not in the ledger"))
                )
            else:
                outcomes.append(Done())
        return outcomes

    async def _applied(self, answers: Sequence[Answer]) -> set[UUID]:
        with self._work.round():
            applied = await self._answered(answers)
        if isinstance(applied, RowsBusyError):
            raise applied
        self._metrics.answered(applied.states, applied.reported)
        return applied.strangers

    async def _answered(self, answers: Sequence[Answer]) -> Applied | RowsBusyError:
        try:
            return await self._reports.answer(answers)
        except RowsBusyError as error:
            return error  # such a row is no sign that applying stands still

    def _read(self, delivery: Delivery) -> Answer | Exception:
        try:
            event = read_event(delivery.message.body, ANSWERS)
        except ContractError as error:
            return error
        return Answer.of(event.data)


router = Router()


@router.batch_subscriber(TOOL_EXECUTED_QUEUE, ToolExecuted, prefetch=PREFETCH)
async def record_usage(
    batch: Sequence[Delivery], recorder: Annotated[UsageRecorder, Context()]
) -> Sequence[Outcome]:
    """Record tool runs in the ledger."""
    return await recorder.record_usage(batch)


@router.batch_subscriber(USAGE_OUTCOMES_QUEUE, *ANSWERS, prefetch=PREFETCH)
async def apply_outcomes(
    batch: Sequence[Delivery], applier: Annotated[OutcomeApplier, Context()]
) -> Sequence[Outcome]:
    """Apply what Stripe answered to the reports."""
    return await applier.apply_outcomes(batch)


@router.subscriber(CUSTOMER_PROVISIONED_QUEUE, prefetch=PREFETCH_CUSTOMERS)
async def keep_account(
    event: Event[CustomerProvisioned],
    accounts: Annotated[Accounts, Context()],
    claim: Annotated[Periodic, Context()],
) -> Outcome:
    """Keep whom a user's usage is billed to, and claim what waited for it."""
    await accounts.apply(event.data)
    claim.wake()
    return Done()
