"""The use case: Stripe says later that it does not count what it had accepted."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

import structlog

from nexus_contracts import MeterErrorsFound
from nexus_messaging.outage_log import OutageLog
from nexus_messaging.outgoing import OutgoingEvent, send_all
from nexus_messaging.publisher import Publisher
from nexus_stripe.answers import StripeAnswer
from stripe_reporter.metrics import ERROR_REPORT, ReporterMetrics
from stripe_reporter.outcomes import not_fetched, rejected_later
from stripe_reporter.rejections import ErrorReport, rejections
from stripe_reporter.reports import attempt_of
from stripe_reporter.storage.rejections import MAX_REJECTIONS, Rejections
from stripe_reporter.stripe.error_reports import ERRORS_FOUND, NO_METER
from stripe_reporter.stripe.responses import response_to

WEBHOOKS: Final = (ERRORS_FOUND, NO_METER)
"""The types of Stripe's events that are heard."""

log = structlog.get_logger()


class Stripe(Protocol):
    """Where the events of webhooks are."""

    async def error_report(self, event_id: str) -> tuple[StripeAnswer, ErrorReport | None]:
        """Return what came back and, if it was a success, what the event says."""


class Sums(Protocol):
    """Who reads Stripe's sums."""

    async def read_soon(self, meter_id: str, start: datetime) -> None:
        """Read the sums of all who used a meter from ``start`` on."""

    async def read_again(self, identifiers: Sequence[str]) -> None:
        """Read the sums of the hours of some reports, however old."""


class Rejecter:
    """Hears what Stripe does not count, marks the reports, and announces them to the ledger.

    A webhook only makes known that there is an event, which is fetched: it may be old, late or a
    repetition, and each of its samples is kept once. Each step is repeated until it is done.
    """

    def __init__(
        self,
        stored: Rejections,
        stripe: Stripe,
        sums: Sums,
        publisher: Publisher,
        metrics: ReporterMetrics,
        *,
        wake: Callable[[], None],
        now: Callable[[], datetime],
    ) -> None:
        self._stored = stored
        self._stripe = stripe
        self._sums = sums
        self._publisher = publisher
        self._metrics = metrics
        self._wake = wake
        self._now = now
        self._outage = OutageLog(
            lambda errors: log.warning(
                "rejections_not_announced", reports=len(errors), cause=str(errors[0])
            ),
            lambda failed: log.info("rejections_announced_again", failed=failed),
        )

    async def hear(self, found: MeterErrorsFound) -> None:
        """Fetch what Stripe says of a meter's errors, and keep the attempts that it names.

        Raises:
            PermanentError: Stripe has no such event, which it keeps for 30 days, or it can't be
                stored.
            TransientError: it, or the list of meters, can't be fetched now.
            UnexpectedAnswerError: Stripe refuses to return it, or it has another form.
            DatabaseUnavailableError: nothing was kept.
        """
        began = time.perf_counter()
        answer, report = await self._stripe.error_report(found.event_id)
        self._metrics.called(ERROR_REPORT, response_to(answer), time.perf_counter() - began)
        if report is None:
            # No circuit is opened: a key without the right to read events must not stop reports.
            raise not_fetched(answer)

        named = list(rejections(report.samples))
        new = await self._stored.keep(named, self._now())
        if report.meter_id is not None:
            # There may be more errors than samples.
            await self._sums.read_soon(report.meter_id, report.start)
        foreign = sum(attempt_of(sample.key) is None for sample in report.samples)
        self._metrics.heard(report.errors, new=new, foreign=foreign)
        log.warning(
            "meter_errors_found",
            event_id=report.event_id,
            meter=report.meter_id,
            errors=report.errors,
            codes=dict(Counter(sample.code for sample in report.samples)),
            new=new,
        )
        self._wake()

    async def settle(self) -> bool:
        """Mark the reports of one batch of rejections, and announce marked ones.

        Raises:
            RowsBusyError: which sums are due is being changed; nothing was announced.
            DatabaseUnavailableError: what was announced will be announced again.
        """
        verdicts = await self._stored.judge(self._now())
        for verdict in verdicts:
            self._metrics.judged(verdict)
        unannounced = await self._stored.unannounced()
        if unannounced:
            # A difference in their hours may be explained now.
            await self._sums.read_again([each.identifier for each in unannounced])
        sendings = [
            OutgoingEvent(rejected_later(each.report_id, each.identifier, each.code, each.at))
            for each in unannounced
        ]
        errors = await send_all(self._publisher, sendings)
        announced = [each for each, error in zip(unannounced, errors, strict=True) if error is None]
        if announced:
            await self._stored.mark_announced(announced, self._now())
        self._outage.round(errors)
        return MAX_REJECTIONS in (len(verdicts), len(announced))
