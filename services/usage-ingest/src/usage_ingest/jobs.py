"""The periodic jobs of usage-ingest: claim, relay, announce, sweep and measure.

Each call is one round of bounded length, and returns whether there is more to do at once.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import structlog

from nexus_contracts import Event, UsageRecorded, UsageThresholdReached
from nexus_messaging.batch_sender import BatchSender
from nexus_messaging.outgoing import OutgoingEvent
from nexus_messaging.publisher import Publisher
from nexus_messaging.tracing import WorkSpan, spans_enabled
from nexus_plans import Plans
from usage_ingest.metrics import IngestMetrics
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import MAX_EVENTS, Claimed, Claims
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.figures import Figures
from usage_ingest.storage.late import LateReadings
from usage_ingest.storage.periods import Periods
from usage_ingest.storage.reports import Reports
from usage_ingest.storage.thresholds import Thresholds
from usage_ingest.storage.totals import Totals
from usage_ingest.thresholds import event_id, newly_reached

SOURCE: Final = "nexus/usage-ingest"

log = structlog.get_logger()


async def claim_usage(
    claims: Claims,
    metrics: IngestMetrics,
    *,
    now: Callable[[], datetime],
    wake_relay: Callable[[], None],
) -> bool:
    """Turn due events into reports; ``wake_relay`` is called if there are new ones.

    Raises:
        DatabaseUnavailableError: nothing was claimed.
    """
    work = WorkSpan("claim usage")
    claimed = await claims.claim(now(), traceparent=work.traceparent)
    if claimed.events:
        reports = claimed.reports + claimed.shadow
        counts = {"nexus.events": claimed.events, "nexus.reports": reports}
        work.end(claimed.contexts, counts)
    metrics.claimed(claimed.events)
    _count_reports(claimed, metrics)
    if claimed.put_back:
        log.info("usage_put_back", events=claimed.put_back)
    if claimed.reports:
        wake_relay()
    return claimed.taken == MAX_EVENTS


async def report_late_readings(
    late: LateReadings,
    claims: Claims,
    metrics: IngestMetrics,
    *,
    now: Callable[[], datetime],
    wake_relay: Callable[[], None],
) -> bool:
    """Price runs that had no price, and turn readings that came late into reports.

    Raises:
        DatabaseUnavailableError: nothing, or not all, was priced and claimed.
    """
    pricing = await late.price(now())
    metrics.priced_late(pricing.priced, pricing.given_up)
    if pricing.priced:
        log.info("runs_priced_late", runs=pricing.priced)
    if pricing.given_up:
        log.warning("runs_never_priced", runs=pricing.given_up)

    claimed = await claims.claim_late(now())
    metrics.claimed_late(claimed.events)
    _count_reports(claimed, metrics)
    if claimed.reports:
        wake_relay()
    return pricing.more or claimed.taken == MAX_EVENTS


def _count_reports(claimed: Claimed, metrics: IngestMetrics) -> None:
    metrics.created(claimed.reports, shadow=claimed.shadow, without_meter=claimed.without_meter)


class Relay:
    """Forwards pending reports: leases, publishes with confirms, marks them.

    No transaction is open while reports are published. A crash after a confirm repeats the report,
    and the reporter knows it by its identifier.
    """

    def __init__(
        self,
        reports: Reports,
        publisher: Publisher,
        metrics: IngestMetrics,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._reports = reports
        self._metrics = metrics
        self._now = now
        self._sender = BatchSender(
            publisher,
            lambda errors: log.warning(
                "reports_not_forwarded", reports=len(errors), cause=str(errors[0])
            ),
            lambda failed: log.info("reports_forwarded_again", failed=failed),
        )

    async def forward(self) -> bool:
        """Forward one batch.

        Raises:
            DatabaseUnavailableError: what was published stays leased and will be repeated.
        """
        leased = await self._reports.lease(self._now())
        for each in leased.set_aside:
            log.error("report_set_aside", report_id=str(each.report_id), broken=str(each))
        self._metrics.set_aside(len(leased.set_aside))
        if not leased.reports:
            return bool(leased.set_aside)

        claims = await self._reports.contexts(leased.reports) if spans_enabled() else {}
        forwarded, failed = await self._sender.send(
            [
                (
                    each.report_id,
                    OutgoingEvent(
                        usage_recorded(each, self._now()), link=claims.get(each.report_id)
                    ),
                )
                for each in leased.reports
            ]
        )
        await self._reports.settle_lease(self._now(), forwarded=forwarded, failed=failed)

        self._metrics.forwarded(len(forwarded), len(failed))
        return not failed


class Announcer:
    """Announces shares of limits that were reached, once each, to whoever subscribed.

    A crash after a confirm repeats the announcement with the same id.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        publisher: Publisher,
        plans: Plans,
        metrics: IngestMetrics,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._thresholds = thresholds
        self._plans = plans
        self._metrics = metrics
        self._now = now
        self._sender = BatchSender(
            publisher,
            lambda errors: log.warning(
                "thresholds_not_announced", thresholds=len(errors), cause=str(errors[0])
            ),
            lambda failed: log.info("thresholds_announced_again", failed=failed),
        )

    async def announce(self) -> bool:
        """Look at one batch of what the folds touched, and announce what was reached.

        Raises:
            DatabaseUnavailableError: what was announced will be announced again.
        """
        touched, usages = await self._thresholds.lease(self._now())
        if not touched:
            return False
        reached = [each for usage in usages for each in newly_reached(usage, self._plans)]
        sent, failed = await self._sender.send(
            [(each, OutgoingEvent(threshold_reached(each), notice=True)) for each in reached]
        )
        await self._thresholds.settle(touched, sent, all_sent=not failed)

        self._metrics.announced(len(sent), len(failed))
        return not failed


async def sweep(
    accounts: Accounts,
    metrics: IngestMetrics,
    *,
    now: Callable[[], datetime],
    wake: Sequence[Callable[[], None]],
) -> bool:
    """Release, expire and supersede what nothing else moves on; ``wake`` are called if it did.

    Raises:
        DatabaseUnavailableError: nothing was moved.
    """
    swept = await accounts.sweep(now())
    metrics.superseded(swept.superseded)
    if swept.released or swept.superseded:
        log.info("usage_released", events=swept.released, reports_superseded=swept.superseded)
        for each in wake:
            each()
    if swept.expired:
        log.warning("usage_expired", events=swept.expired)
    return swept.more


async def place_reports(
    periods: Periods, metrics: IngestMetrics, *, now: Callable[[], datetime]
) -> bool:
    """Find out on which invoices the reports are that Stripe accepted.

    Raises:
        RowsBusyError: another process does so.
        DatabaseUnavailableError: none was placed.
    """
    placed, more = await periods.place(now())
    metrics.placed(placed)
    return more


async def measure(
    figures: Figures,
    totals: Totals,
    counted: CountedSums,
    metrics: IngestMetrics,
    *,
    now: Callable[[], datetime],
) -> None:
    """Bring the figures on the ledger up to date.

    Raises:
        DatabaseUnavailableError: the figures stay as they were, and so does their time.
    """
    moment = now()
    for figure in await figures.measure():
        if figure.of == "unpriced":
            metrics.unpriced_figures(figure.number, figure.age(moment))
        elif figure.of == "events":
            metrics.event_figures(figure.state, figure.number, figure.age(moment))
        else:
            metrics.report_figures(figure.state, figure.number, figure.age(moment))
    for each in await totals.progress():
        metrics.totals_are_of(each.part, each.age)
    metrics.differences(await counted.open_differences(), moment)
    last = await counted.last_reading()
    metrics.counted_last(0.0 if last is None else max(0.0, (moment - last).total_seconds()))
    metrics.measured()


def threshold_reached(reached: UsageThresholdReached) -> Event[UsageThresholdReached]:
    """Return the event that announces ``reached``; made again, it is the same event."""
    return Event.of(reached, source=SOURCE, id=event_id(reached), time=reached.as_of)


def usage_recorded(report: UsageRecorded, now: datetime) -> Event[UsageRecorded]:
    """Return the event that carries ``report`` to the reporter; its id is the report's."""
    return Event.of(report, source=SOURCE, id=report.report_id, time=now)
