"""What customer-provisioner consumes: users who need a customer, and what changed at Stripe."""

from typing import Annotated, Final

import structlog
from faststream import Context

from customer_provisioner.changes import FUTURE_TOLERANCE
from customer_provisioner.following import Follower
from customer_provisioner.linking import LinkFault, LinkRefusedError
from customer_provisioner.metrics import Metrics
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.refreshing import Refresher
from customer_provisioner.storage.changes import ChangeStore
from customer_provisioner.storage.statements import KeepResult
from customer_provisioner.storage.writer import ProfileWriter
from nexus_contracts import Event, StripeChanged, UserCreatedV1, UserCreatedV2, UserUpdated
from nexus_contracts.user_created import newest
from nexus_database import RowRefusedError
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.router import Router
from nexus_messaging.topology import (
    STRIPE_CHANGED_QUEUE,
    USER_CREATED_QUEUE,
    USER_UPDATED_QUEUE,
)

PREFETCH: Final = 20
"""Users at the same time: Stripe takes about a second to create a customer."""

log = structlog.get_logger()

router = Router()


@router.subscriber(USER_CREATED_QUEUE, prefetch=PREFETCH)
async def provision_user(
    event: Event[UserCreatedV1] | Event[UserCreatedV2],
    profiles: Annotated[ProfileWriter, Context()],
    provisioner: Annotated[Provisioner, Context()],
    metrics: Annotated[Metrics, Context()],
) -> Outcome:
    """Store a new user and give it a customer at Stripe, or link the one that it has there.

    Raises what ``provision`` raises.
    """
    user = newest(event.data)
    try:
        kept = await profiles.keep(user, utc_now())
    except RowRefusedError as error:
        raise PermanentError(Reason.UNSTORABLE, str(error)) from None
    if kept is KeepResult.ADDRESS_IGNORED:
        metrics.address_ignored()
        log.warning("address_ignored", user_id=str(user.user_id))
    customer_id = await provisioner.provision(user.user_id)
    if user.stripe_customer_id not in (None, customer_id):
        await profiles.note_refused_link(user.user_id, user.stripe_customer_id, utc_now())
        raise LinkRefusedError(LinkFault.OTHER_CUSTOMER)
    return Done(event.source)


@router.subscriber(USER_UPDATED_QUEUE, prefetch=PREFETCH)
async def follow_user(
    event: Event[UserUpdated],
    profiles: Annotated[ProfileWriter, Context()],
    changes: Annotated[ChangeStore, Context()],
    follower: Annotated[Follower, Context()],
    metrics: Annotated[Metrics, Context()],
) -> Outcome:
    """Store what changed about a user, and send it to the user's customer at Stripe.

    Without a customer it waits in the database. Raises what ``follow`` raises.
    """
    update, now = event.data, utc_now()
    ahead = event.time - now
    if ahead > FUTURE_TOLERANCE:
        detail = f"time: {ahead.total_seconds():.0f} s ahead of our clock"
        raise PermanentError(Reason.TIMESTAMP_IN_FUTURE, detail)
    try:
        if not await changes.keep(update, event.time, now):
            metrics.changed("outdated")
    except RowRefusedError as error:
        raise PermanentError(Reason.UNSTORABLE, str(error)) from None
    await profiles.correct_address(update.user_id, now)
    await follower.follow(update.user_id)
    return Done(event.source)


@router.subscriber(STRIPE_CHANGED_QUEUE, prefetch=PREFETCH)
async def follow_stripe(
    event: Event[StripeChanged],
    refresher: Annotated[Refresher, Context()],
) -> Outcome:
    """Fetch what a webhook says has changed, and store it. Raises what ``follow`` raises."""
    await refresher.follow(event.data)
    return Done(event.source)
