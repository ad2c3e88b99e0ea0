"""What is done every so often: claim, forward, sweep, measure; each function is one round."""

from collections.abc import Callable, Sequence
from datetime import datetime
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

Clock = Callable[[], datetime]

log = structlog.get_logger()


class Claiming:
    """Makes reports of due events; ``wake`` is called when there are some to forward."""

    def __init__(
        self, claims: Claims, metrics: IngestMetrics, *, now: Clock, wake: Callable[[], None]
    ) -> None:
        self._claims = claims
        self._metrics = metrics
        self._now = now
        self._wake = wake

    async def claim(self) -> bool:
        """Claim once; return whether more is due.

        Raises:
            DatabaseUnavailableError: nothing was claimed.
        """
        claimed = await self._claimed()
        self._metrics.claimed(claimed.events, claimed.reports)
        if claimed.reports:
            self._wake()
        return claimed.events == MOST_EVENTS

    async def _claimed(self) -> Claimed:
        work = Undertaking("claim usage")
        claimed = await self._claims.claim(self._now(), traceparent=work.traceparent)
        if claimed.events:
            figures = {"nexus.events": claimed.events, "nexus.reports": claimed.reports}
            work.done(claimed.contexts, figures)
        return claimed


class Relaying:
    """Forwards pending reports: leases, publishes with confirms, marks. No lock spans the network.

    A crash after a confirm repeats the report; the reporter knows it by its identifier.
    """

    def __init__(
        self,
        reports: Reports,
        publisher: Publisher,
        metrics: IngestMetrics,
        *,
        now: Clock,
    ) -> None:
        self._reports = reports
        self._publisher = publisher
        self._metrics = metrics
        self._now = now
        self._not_forwarded = 0

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


class Sweeping:
    """Releases, expires and replaces what waits without a reason."""

    def __init__(
        self,
        accounts: Accounts,
        metrics: IngestMetrics,
        *,
        now: Clock,
        wake: Sequence[Callable[[], None]],
    ) -> None:
        self._accounts = accounts
        self._metrics = metrics
        self._now = now
        self._wake = wake

    async def sweep(self) -> bool:
        """Sweep once; return whether more is left."""
        swept = await self._accounts.sweep(self._now())
        self._metrics.superseded(swept.superseded)
        if swept.released or swept.superseded:
            log.info("usage_released", events=swept.released, reports_superseded=swept.superseded)
            for wake in self._wake:
                wake()
        if swept.expired:
            log.warning("usage_expired", events=swept.expired)
        return swept.more


class Measuring:
    """Keeps the figures on the ledger fresh for whoever scrapes them."""

    def __init__(self, figures: Figures, metrics: IngestMetrics, now: Clock) -> None:
        self._figures = figures
        self._metrics = metrics
        self._now = now

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
