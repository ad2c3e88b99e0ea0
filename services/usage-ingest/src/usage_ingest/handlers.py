"""What usage-ingest does with each kind of message; none of it acks, the outcomes say what did."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from nexus_contracts import (
    ContractError,
    CustomerProvisioned,
    ToolExecuted,
    UsageRejectedV1,
    UsageReportedV1,
    read_event,
)
from nexus_database import RowRefusedError
from nexus_messaging.errors import PermanentError
from nexus_messaging.message import Delivery
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, Failed, Outcome
from usage_ingest.accounts import Accounts
from usage_ingest.ledger import Duplicate, Entry, IdTaken, Ledger, Recorded, Result
from usage_ingest.metering import BillingRules, BillingState, is_from_the_future
from usage_ingest.metrics import IngestMetrics
from usage_ingest.reports import Answer, Reports

Clock = Callable[[], datetime]

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
        *,
        now: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._rules = rules
        self._metrics = metrics
        self._now = now
        self._wake = wake

    async def record_usage(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Record a batch of tool runs in one transaction; outcomes are carried out after it.

        Raises:
            PermanentError: one row of the batch can never be stored.
            DatabaseUnavailableError: nothing was recorded.
        """
        now = self._now()
        read = [self._read(delivery, now) for delivery in batch]
        entries = [each for each in read if isinstance(each, Entry)]
        try:
            results = iter(await self._ledger.record(entries) if entries else [])
        except RowRefusedError as error:
            raise PermanentError(Reason.UNSTORABLE, str(error)) from None
        return [
            self._outcome(next(results)) if isinstance(each, Entry) else self._refusal(each)
            for each in read
        ]

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
        self._metrics.refused()
        return Failed(error)

    def _outcome(self, result: Result) -> Outcome:
        match result:
            case Recorded(state):
                self._metrics.recorded(state)
                if state is BillingState.DUE:
                    self._wake()
                return Done()
            case Duplicate():
                self._metrics.duplicate()
                return Done()
            case IdTaken(source):
                self._metrics.id_taken()
                return Failed(
                    PermanentError(
                        Reason.EVENT_ID_TAKEN, f"id: another event of source {source!r} holds it"
                    )
                )


def account_keeper(
    accounts: Accounts, wake: Callable[[], None]
) -> Callable[[Delivery], Awaitable[Outcome]]:
    """Return the handler of `customer.provisioned`."""

    async def keep_account(delivery: Delivery) -> Outcome:
        event = read_event(delivery.message.body, [CustomerProvisioned])
        await accounts.apply(event.data)
        wake()
        return Done()

    return keep_account


class OutcomeApplier:
    """Applies batches of `usage.reported` and `usage.rejected` to the reports."""

    def __init__(self, reports: Reports, metrics: IngestMetrics) -> None:
        self._reports = reports
        self._metrics = metrics

    async def apply_outcomes(self, batch: Sequence[Delivery]) -> Sequence[Outcome]:
        """Apply a batch of answers in one transaction.

        Raises:
            DatabaseUnavailableError: nothing was applied.
        """
        read = [self._read(delivery) for delivery in batch]
        answers = [each for each in read if isinstance(each, Answer)]
        strangers = await self._reports.answer(answers) if answers else set()
        outcomes: list[Outcome] = []
        for each in read:
            if isinstance(each, Exception):
                outcomes.append(Failed(each))
            elif each.report_id in strangers:
                outcomes.append(
                    Failed(PermanentError(Reason.UNKNOWN_REPORT, "report_id: not in the ledger"))
                )
            else:
                self._metrics.answered(each.state)
                outcomes.append(Done())
        return outcomes

    def _read(self, delivery: Delivery) -> Answer | Exception:
        try:
            event = read_event(delivery.message.body, ANSWERS)
        except ContractError as error:
            return error
        return Answer.of(event.data)
