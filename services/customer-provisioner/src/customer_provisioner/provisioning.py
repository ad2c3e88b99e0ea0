"""Giving a kept user its customer: whoever asks, however often, from whichever process."""

from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from customer_provisioner.metrics import Metrics
from customer_provisioner.profile import Attempt, Create, InHand, LookUpFirst, Nothing
from customer_provisioner.profiles import Profiles, Stored, Taken
from customer_provisioner.stripe_api import KeySpentError, StripeApi, StripePausedError
from nexus_messaging.errors import PermanentError, TransientError
from nexus_messaging.topology import TIERS

MOST_STEPS: Final = 4
"""A look-up, a creation and the discovery that all is done, with one to spare for a rival."""

log = structlog.get_logger()


class Provisioning:
    """Takes the steps that ``profile.decide`` decides, none of them inside a transaction.

    ``on_provisioned`` is called after each customer that was stored.
    """

    def __init__(
        self,
        profiles: Profiles,
        stripe: StripeApi,
        metrics: Metrics,
        *,
        on_provisioned: Callable[[], None],
        now: Callable[[], datetime],
    ) -> None:
        self._profiles = profiles
        self._stripe = stripe
        self._metrics = metrics
        self._on_provisioned = on_provisioned
        self._now = now

    async def provision(self, user_id: UUID) -> None:
        """Return once the user, whose profile is kept, has its customer.

        Raises:
            TransientError: not yet; the same call will succeed later.
            PermanentError: Stripe refuses this customer.
            StripePausedError: no user can be served now.
            DatabaseUnavailableError: the database can't be used.
        """
        for _ in range(MOST_STEPS):
            self._stripe.require_closed()  # before the claim, which would be for nothing
            step = await self._profiles.claim(user_id, self._now())
            match step:
                case Nothing():
                    return
                case InHand():
                    break
                case Create(attempt):
                    await self._create(attempt, step)
                case LookUpFirst(attempt):
                    await self._look_up(attempt, step.email)
        raise TransientError("another attempt for this user is in hand", tier=TIERS[0])

    async def _create(self, attempt: Attempt, step: Create) -> None:
        try:
            customer_id = await self._stripe.create(step)
        except PermanentError as error:
            await self._profiles.refuse(attempt, str(error), self._now())
            raise
        except KeySpentError as error:
            await self._profiles.spend_key(attempt, str(error), self._now())
            raise
        except (TransientError, StripePausedError) as error:
            await self._profiles.give_up(attempt, str(error), self._now())
            raise
        await self._store(attempt, customer_id, Taken.CREATED)

    async def _look_up(self, attempt: Attempt, email: str) -> None:
        try:
            found = await self._stripe.find(str(attempt.user_id), email)
        except (TransientError, PermanentError, StripePausedError) as error:
            await self._profiles.give_up(attempt, str(error), self._now())
            raise
        if not found:
            await self._profiles.renew_key(attempt, self._now())
            return
        oldest, *others = found
        if others:
            self._tell_surplus(attempt, [customer.id for customer in others])
        await self._store(attempt, oldest.id, Taken.ADOPTED)

    async def _store(self, attempt: Attempt, customer_id: str, how: Taken) -> None:
        stored = await self._profiles.store(attempt, customer_id, how, self._now())
        match stored:
            case Stored.NOW:
                self._metrics.stored(how.value)
                self._on_provisioned()
            case Stored.SURPLUS:
                self._tell_surplus(attempt, [customer_id])

    def _tell_surplus(self, attempt: Attempt, customer_ids: list[str]) -> None:
        self._metrics.surplus(len(customer_ids))
        log.error("surplus_customers", user_id=str(attempt.user_id), customers=customer_ids)
