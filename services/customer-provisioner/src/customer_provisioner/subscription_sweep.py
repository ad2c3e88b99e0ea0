"""Once a day, all subscriptions at Stripe are compared with what webhooks have said of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.metrics import Metrics
from customer_provisioner.refreshing import Refresher
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.storage.sweeps import SweepPage, SweepStore
from customer_provisioner.stripe.subscriptions import SubscriptionApi
from customer_provisioner.subscriptions import (
    Difference,
    after_sweep,
    difference,
    snapshot_of,
)
from nexus_messaging.errors import PermanentError, TransientError
from nexus_plans import Plans

EVERY: Final = timedelta(days=1)
"""From the start of a sweep to that of the next."""

PACE: Final = timedelta(seconds=4)
"""From one page to the next: a hundred subscriptions, and no hurry."""

AFTER_FAULT: Final = timedelta(minutes=1)
"""From a page that Stripe did not answer to its repetition."""

ON_THE_WAY: Final = 60.0
"""Seconds in which a webhook may still come for what the sweep has seen to be different."""

log = structlog.get_logger()


class SubscriptionSweep:
    """Repairs what webhooks lost, and has every subscription announced again."""

    def __init__(
        self,
        progress: SweepStore,
        subscriptions: SubscriptionStore,
        stripe: SubscriptionApi,
        refresher: Refresher,
        plans: Plans | None,
        metrics: Metrics,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._progress = progress
        self._subscriptions = subscriptions
        self._stripe = stripe
        self._refresher = refresher
        self._plans = plans
        self._metrics = metrics
        self._now = now
        self._sleep = sleep

    async def sweep_page(self) -> bool:
        """Do one round: set the gauges, and sweep a page if one is due.

        Returns:
            False: the next page is not due at once.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        counts = await self._subscriptions.counts()
        if self._plans is None:  # then none of them is for a plan
            counts = replace(counts, without_plan=0)
        self._metrics.set_subscriptions(counts, await self._progress.swept_at())
        page = await self._progress.lease(self._now())
        if page is None:
            return False

        try:
            after_id = await self._repair(page)
        except (TransientError, CircuitOpenError):
            await self._progress.advance(page, page.after_id, self._now() + AFTER_FAULT)
        except PermanentError as error:
            # The subscription to go on after may be gone, as with test data.
            log.warning("subscription_sweep_abandoned", error=str(error))
            await self._progress.abandon(page, self._now() + AFTER_FAULT)
        else:
            if after_id is None:
                await self._progress.finish(page, page.started_at + EVERY, self._now())
            else:
                await self._progress.advance(page, after_id, self._now() + PACE)
        return False

    async def _repair(self, page: SweepPage) -> str | None:
        """Refresh what differs on a page; return the subscription to go on after, if any."""
        as_of = self._now()
        listed, after_id = await self._stripe.page(page.after_id)
        ids = [each.subscription_id for each in listed]
        before = await self._subscriptions.find(ids)
        found = {
            each.subscription_id: difference(
                before.get(each.subscription_id),
                each,
                snapshot_of(each, self._plans),
                page.previous_at,
            )
            for each in listed
        }
        lost = [each for each in ids if found[each] is Difference.WEBHOOK]
        if lost:
            await self._sleep(ON_THE_WAY)
            meanwhile = await self._subscriptions.find(lost)
            lost = [each for each in lost if meanwhile.get(each) == before.get(each)]

        for subscription_id in ids:
            is_lost = subscription_id in lost
            if found[subscription_id] is not Difference.OURS and not is_lost:
                continue
            try:
                await self._refresher.refresh(subscription_id)
            except PermanentError as error:  # such as one that was removed since the page was read
                log.warning("subscription_refused", subscription=subscription_id, error=str(error))
                if subscription_id not in before:
                    await self._progress.note_unread(page)
                continue
            if is_lost:
                self._metrics.webhook_lost()
                log.warning("webhook_lost", subscription=subscription_id)
        for subscription_id, stored in before.items():
            if found[subscription_id] is Difference.NONE:  # and else it has changed meanwhile
                same = after_sweep(stored, as_of)
                await self._subscriptions.store(same, expected=stored.revision)
        return after_id
