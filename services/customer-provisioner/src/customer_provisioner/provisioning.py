"""The use case: a stored user gets its customer, whoever asks for it and however often."""

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.linking import LinkFault, LinkRefusedError
from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import (
    Create,
    InProgress,
    Link,
    LinkRefused,
    LookUp,
    Provisioned,
)
from customer_provisioner.storage.statements import Failure, Step, StoreResult
from customer_provisioner.storage.writer import ProfileWriter
from customer_provisioner.stripe.api import StripeApi
from customer_provisioner.stripe.responses import KeySpentError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.topology import TIERS

MAX_STEPS: Final = 4
"""A look-up, a creation, the finding that the user has a customer, and one more for a step that
another attempt made obsolete."""

log = structlog.get_logger()


class Provisioner:
    """Takes the steps that ``profile.next_step`` decides.

    Messages, the sweep and other processes may do so for one user at the same time.
    """

    def __init__(
        self,
        profiles: ProfileWriter,
        stripe: StripeApi,
        metrics: Metrics,
        *,
        wake_relay: Callable[[], None],
        now: Callable[[], datetime],
    ) -> None:
        self._profiles = profiles
        self._stripe = stripe
        self._metrics = metrics
        self._wake_relay = wake_relay
        self._now = now

    async def provision(self, user_id: UUID) -> str:
        """Return the customer of the stored user once there is one; the relay then announces it.

        Raises:
            TransientError: not yet; the same call will succeed later.
            LinkRefusedError: the customer to be linked can't be this user's.
            PermanentError: Stripe refuses this customer.
            CircuitOpenError: Stripe is not called now.
            DatabaseUnavailableError: the database can't be used.
        """
        for _ in range(MAX_STEPS):
            self._stripe.require_closed()  # before the claim, which would be in vain
            step = await self._profiles.claim(user_id, self._now())
            if isinstance(step, Provisioned):
                return step.customer_id
            if isinstance(step, LinkRefused):
                raise LinkRefusedError(step.fault)
            if isinstance(step, InProgress):
                break

            try:  # outside any transaction
                customers, how = await self._call_stripe(step)
            except (TransientError, PermanentError, CircuitOpenError) as error:
                failure = failure_of(step, error)
                await self._profiles.fail(step.attempt, failure, str(error), self._now())
                raise
            if not customers:
                await self._profiles.renew_key(step.attempt, self._now())
                continue

            oldest, *surplus = customers
            self._report_surplus(user_id, surplus)
            stored = await self._profiles.store(step.attempt, oldest, how, self._now())
            if stored is StoreResult.STORED:
                self._metrics.stored(how.value)
                self._wake_relay()  # which publishes `customer.provisioned`
            elif stored is StoreResult.TAKEN:
                raise LinkRefusedError(LinkFault.TAKEN)
            elif stored is StoreResult.SURPLUS:
                self._report_surplus(user_id, [oldest])
        raise TransientError("another attempt for this user is in progress", tier=TIERS[0])

    async def _call_stripe(self, step: Create | Link | LookUp) -> tuple[list[str], Step]:
        match step:
            case Create():
                return [await self._stripe.create(step)], Step.CREATED
            case Link():
                return [await self._stripe.link(step)], Step.LINKED
            case LookUp():
                return await self._stripe.find(step), Step.ADOPTED

    def _report_surplus(self, user_id: UUID, customer_ids: list[str]) -> None:
        if customer_ids:
            self._metrics.surplus(len(customer_ids))
            log.error("surplus_customers", user_id=str(user_id), customers=customer_ids)


def failure_of(step: Create | Link | LookUp, error: Exception) -> Failure:
    """Return what ``error`` means for the next attempt: a look-up's says nothing about the key."""
    if not isinstance(step, LookUp):
        if isinstance(error, PermanentError):
            return Failure.REFUSED
        if isinstance(error, KeySpentError):
            return Failure.KEY_SPENT
    return Failure.RETRYABLE
