"""The use case: what Stripe has of a subscription is stored, in whatever order one hears of it."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from customer_provisioner.linking import CustomerStatus
from customer_provisioner.metrics import Metrics
from customer_provisioner.storage.subscriptions import SubscriptionStore
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.subscriptions import SubscriptionApi
from customer_provisioner.subscriptions import after_fetch
from nexus_contracts import StripeChanged
from nexus_messaging.errors import TransientError
from nexus_messaging.topology import TIERS
from nexus_plans import Plans

MAX_FETCHES: Final = 4
"""Fetches in a row of a subscription that others store meanwhile; then the message waits."""

_SUBSCRIPTION: Final = "customer.subscription."
_ENTITLEMENTS: Final = "entitlements.active_entitlement_summary.updated"
_CUSTOMER: Final = ("customer.updated", "customer.deleted")

WEBHOOKS: Final = (f"{_SUBSCRIPTION}*", _ENTITLEMENTS, *_CUSTOMER)
"""The types of Stripe's events that are followed."""

log = structlog.get_logger()


class Refresher:
    """Fetches what a webhook, or the nightly sweep, says has changed.

    Any number of messages, sweeps and processes may do so for one subscription at the same time.
    """

    def __init__(
        self,
        subscriptions: SubscriptionStore,
        profiles: ProfileWriter,
        customers: StripeApi,
        stripe: SubscriptionApi,
        plans: Plans | None,
        metrics: Metrics,
        *,
        wake_relay: Callable[[], None],
        now: Callable[[], datetime],
    ) -> None:
        self._subscriptions = subscriptions
        self._profiles = profiles
        self._stripe = stripe
        self._customers = customers
        self._plans = plans
        self._metrics = metrics
        self._wake_relay = wake_relay
        self._now = now

    async def follow(self, changed: StripeChanged) -> None:
        """Refresh what a webhook names. Raises what ``refresh`` raises.

        Only the type and the ids of the webhook are used: it may be old, late or a repetition.
        """
        if changed.event_type.startswith(_SUBSCRIPTION):
            await self.refresh(changed.object_id)
        elif changed.event_type == _ENTITLEMENTS:
            for subscription_id in await self._stripe.of_customer(changed.object_id):
                await self.refresh(subscription_id)
        elif changed.event_type in _CUSTOMER:
            await self.refresh_customer(changed.object_id)

    async def refresh(self, subscription_id: str) -> None:
        """Store a subscription as Stripe has it now; the relay then announces it.

        Of two fetches the one that began later may have been answered earlier. So a fetch is stored
        only if no other was stored since before it began, and is else repeated: what is stored was
        never fetched before what it replaces had been stored.

        Raises:
            TransientError: not yet; the same call will succeed later.
            PermanentError: Stripe refuses it: it has no such subscription.
            CircuitOpenError: Stripe is not called now.
            DatabaseUnavailableError: the database can't be used.
        """
        for _ in range(MAX_FETCHES):
            stored = (await self._subscriptions.find([subscription_id])).get(subscription_id)
            as_of = self._now()
            fetched = await self._stripe.fetch(subscription_id)  # outside any transaction
            changed = after_fetch(stored, fetched, self._plans, as_of)
            expected = 0 if stored is None else stored.revision
            if await self._subscriptions.store(changed, expected=expected):
                self._metrics.fetched("stored")
                self._wake_relay()  # which publishes `subscription.changed`
                return
            self._metrics.fetched("overtaken")
        raise TransientError("others store this subscription at the same time", tier=TIERS[0])

    async def refresh_customer(self, customer_id: str) -> None:
        """Look whether a customer still exists; if Stripe has deleted it, say so.

        Its subscriptions have then ended. Raises what ``refresh`` raises.
        """
        found = await self._customers.retrieve(customer_id)
        if found.status is not CustomerStatus.DELETED:
            return
        account_id = await self._profiles.note_deleted_customer(customer_id, self._now())
        if account_id is not None:
            log.error("customer_deleted", account_id=str(account_id), customer=customer_id)
        for subscription_id in await self._subscriptions.of_customer(customer_id):
            await self.refresh(subscription_id)
