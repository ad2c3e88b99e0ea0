"""The two loops behind the ledger, and the sweep that makes up for every race and lost wake-up."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog

from nexus_contracts import Event, UsageRecorded
from nexus_messaging.errors import PublishError
from nexus_messaging.message import Message
from nexus_messaging.publisher import Publication, Publisher
from nexus_messaging.sending import Sending
from nexus_messaging.topology import INTERNAL
from nexus_messaging.tracing import Undertaking, is_on
from usage_ingest.accounts import Accounts
from usage_ingest.claims import MOST_EVENTS, Claimed, Claims
from usage_ingest.figures import Figures
from usage_ingest.metrics import IngestMetrics
from usage_ingest.reports import InexpressibleError, Reports

SOURCE: Final = "nexus/usage-ingest"

IDLE: Final = timedelta(seconds=1)
"""Without a wake-up a loop looks again after this: windows close by the clock alone."""

GATHERED_FOR: Final = timedelta(milliseconds=500)
"""Between being woken and claiming. A backlog is recorded batch by batch: claimed after the first
of them, each window of it would be reported many times over, and Stripe's limit is on reports."""

SWEEP_EVERY: Final = timedelta(seconds=3)

MEASURE_EVERY: Final = timedelta(seconds=10)
"""As often as anybody looks: a scrape takes the figures as they are and asks nothing."""

Clock = Callable[[], datetime]

log = structlog.get_logger()


class Bell:
    """Wakes a loop early; ringing twice before it wakes is ringing once."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the loop, now or when it next waits."""
        self._rung.set()

    async def wait(self, most: timedelta) -> None:
        """Return when rung, or after ``most``."""
        try:
            async with asyncio.timeout(most.total_seconds()):
                await self._rung.wait()
        except TimeoutError:
            return
        finally:
            self._rung.clear()


class ClaimLoop:
    """Claims due events until none is left, then waits for more and lets them gather."""

    def __init__(
        self, claims: Claims, metrics: IngestMetrics, bell: Bell, *, now: Clock, wake: Bell
    ) -> None:
        self._claims = claims
        self._metrics = metrics
        self._bell = bell
        self._now = now
        self._wake = wake

    async def run(self) -> None:
        """Claim until cancelled."""
        while True:
            await asyncio.sleep(GATHERED_FOR.total_seconds())
            while await self._claim() == MOST_EVENTS:
                pass
            await self._bell.wait(IDLE)

    async def _claim(self) -> int:
        with self._metrics.working("claim"):
            claimed = await self._claimed()
        self._metrics.claimed(claimed.events, claimed.reports)
        if claimed.reports:
            self._wake.ring()
        return claimed.events

    async def _claimed(self) -> Claimed:
        work = Undertaking("claim usage")
        claimed = await self._claims.claim(self._now(), traceparent=work.traceparent)
        if claimed.events:
            figures = {"nexus.events": claimed.events, "nexus.reports": claimed.reports}
            work.done(claimed.contexts, figures)
        return claimed


class RelayLoop:
    """Forwards pending reports: leases, publishes with confirms, marks. No lock spans the network.

    A crash after a confirm repeats the report; the reporter knows it by its identifier.
    """

    def __init__(
        self,
        reports: Reports,
        publisher: Publisher,
        metrics: IngestMetrics,
        bell: Bell,
        *,
        now: Clock,
    ) -> None:
        self._reports = reports
        self._publisher = publisher
        self._metrics = metrics
        self._bell = bell
        self._now = now
        self._not_forwarded = 0

    async def run(self) -> None:
        """Forward until cancelled."""
        while True:
            with self._metrics.working("relay"):
                more = await self.forward()
            if not more:
                await self._bell.wait(IDLE)

    async def forward(self) -> bool:
        """Forward one batch; return whether there is reason to go on at once.

        Raises:
            DatabaseUnavailableError: what was published stays leased and will be repeated.
        """
        leased = await self._reports.lease(self._now())
        self._log_set_aside(leased.set_aside)
        reports = leased.reports
        if not reports:
            return bool(leased.set_aside)
        results = await self._published(reports)
        answered = list(zip(reports, results, strict=True))
        forwarded = [report.report_id for report, error in answered if error is None]
        failed = [report.report_id for report, error in answered if error is not None]
        await self._reports.settle_lease(self._now(), forwarded=forwarded, failed=failed)
        self._metrics.forwarded(len(forwarded), len(failed))
        self._log_outage(next((error for error in results if error is not None), None), len(failed))
        return not failed

    def _log_outage(self, cause: PublishError | None, failed: int) -> None:
        """Log the first round that fails and the first that does not again."""
        if cause is not None and not self._not_forwarded:
            log.warning("reports_not_forwarded", reports=failed, cause=str(cause))
        elif cause is None and self._not_forwarded:
            log.info("reports_forwarded_again", failed=self._not_forwarded)
        self._not_forwarded = self._not_forwarded + failed if failed else 0

    def _log_set_aside(self, set_aside: Sequence[InexpressibleError]) -> None:
        for error in set_aside:
            log.error("report_set_aside", report_id=str(error.report_id), broken=str(error))
        self._metrics.set_aside(len(set_aside))

    async def _published(self, reports: Sequence[UsageRecorded]) -> list[PublishError | None]:
        claims = await self._reports.contexts(reports) if is_on() else {}
        sent = [
            Sending(usage_recorded(each, self._now()), link=claims.get(each.report_id))
            for each in reports
        ]
        results = await self._publisher.publish_all([each.publication for each in sent])
        for each, error in zip(sent, results, strict=True):
            each.ended(error)
        return results


class SweepLoop:
    """Releases, expires and replaces what waits without a reason."""

    def __init__(
        self, accounts: Accounts, metrics: IngestMetrics, *, now: Clock, wake: tuple[Bell, Bell]
    ) -> None:
        self._accounts = accounts
        self._metrics = metrics
        self._now = now
        self._wake = wake

    async def run(self) -> None:
        """Sweep every few seconds until cancelled, and at once where more is left."""
        while True:
            with self._metrics.working("sweep"):
                swept = await self._accounts.sweep(self._now())
            self._metrics.superseded(swept.superseded)
            if swept.released or swept.superseded:
                log.info(
                    "usage_released", events=swept.released, reports_superseded=swept.superseded
                )
                for bell in self._wake:
                    bell.ring()
            if swept.expired:
                log.warning("usage_expired", events=swept.expired)
            if not swept.more:
                await asyncio.sleep(SWEEP_EVERY.total_seconds())


class MeasureLoop:
    """Keeps the figures on the ledger fresh for whoever scrapes them."""

    def __init__(self, figures: Figures, metrics: IngestMetrics, *, now: Clock) -> None:
        self._figures = figures
        self._metrics = metrics
        self._now = now

    async def run(self) -> None:
        """Measure every few seconds until cancelled."""
        while True:
            with self._metrics.working("measure"):
                await self.measure()
            await asyncio.sleep(MEASURE_EVERY.total_seconds())

    async def measure(self) -> None:
        """Measure once.

        Raises:
            DatabaseUnavailableError: the figures stay as they were, and so does their time.
        """
        now = self._now()
        for figure in await self._figures.measure():
            if figure.of == "events":
                self._metrics.event_figures(figure.state, figure.number, figure.age(now))
            else:
                self._metrics.report_figures(figure.state, figure.number, figure.age(now))
        self._metrics.measured()


def publication(report: UsageRecorded, now: datetime) -> Publication:
    """Return the publication of ``report``, as the commands repeat it."""
    event = usage_recorded(report, now)
    return Publication(INTERNAL, event.type, Message.of(event))


def usage_recorded(report: UsageRecorded, now: datetime) -> Event[UsageRecorded]:
    """Return the event that carries ``report`` to the reporter; its id is the report's."""
    return Event.of(report, source=SOURCE, id=report.report_id, time=now)
