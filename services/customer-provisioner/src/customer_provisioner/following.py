"""The use case: what changes about a user follows to its customer at Stripe."""

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from customer_provisioner.changes import Send
from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.metrics import Metrics
from customer_provisioner.storage.changes import ChangeStore
from customer_provisioner.stripe.api import StripeApi
from nexus_messaging.errors import PermanentError, TransientError

MAX_STEPS: Final = 4
"""Calls in a row for a user who changes meanwhile; then the sweep goes on."""


class Follower:
    """Takes the steps that ``changes.next_step`` decides.

    Messages, the sweep and other processes may do so for one user at the same time.
    """

    def __init__(
        self,
        changes: ChangeStore,
        stripe: StripeApi,
        metrics: Metrics,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._changes = changes
        self._stripe = stripe
        self._metrics = metrics
        self._now = now

    async def follow(self, user_id: UUID) -> None:
        """Send a user's change, if one waits and the user has a customer.

        Raises:
            TransientError: not yet; the same call will succeed later.
            PermanentError: Stripe refuses this change.
            CircuitOpenError: Stripe is not called now.
            DatabaseUnavailableError: the database can't be used.
        """
        for _ in range(MAX_STEPS):
            self._stripe.require_closed()  # before the claim, which would be in vain
            step = await self._changes.claim(user_id, self._now())
            if not isinstance(step, Send):
                return

            try:  # outside any transaction
                await self._stripe.update(step)
            except PermanentError as error:
                await self._changes.refuse(step, str(error), self._now())
                self._metrics.changed("refused")
                raise
            except (TransientError, CircuitOpenError) as error:
                await self._changes.fail(step, str(error), self._now())
                raise
            self._metrics.changed("sent")
            if await self._changes.finish(step, self._now()):
                return
