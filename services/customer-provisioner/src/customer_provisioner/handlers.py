"""What customer-provisioner consumes: a user is stored, then given a customer."""

from typing import Annotated, Final

import structlog
from faststream import Context

from customer_provisioner.metrics import Metrics
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.storage.writer import KeepResult, ProfileWriter
from nexus_contracts import Event, UserCreated
from nexus_database import RowRefusedError
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.router import Router
from nexus_messaging.topology import USER_CREATED_QUEUE

PREFETCH: Final = 20
"""Users at the same time: Stripe takes about a second to create a customer."""

log = structlog.get_logger()

router = Router()


@router.subscriber(USER_CREATED_QUEUE, prefetch=PREFETCH)
async def provision_user(
    event: Event[UserCreated],
    profiles: Annotated[ProfileWriter, Context()],
    provisioner: Annotated[Provisioner, Context()],
    metrics: Annotated[Metrics, Context()],
) -> Outcome:
    """Store a new user and give it a customer at Stripe; raises what ``provision`` raises."""
    user = event.data
    try:
        kept = await profiles.keep(user, utc_now())
    except RowRefusedError as error:
        raise PermanentError(Reason.UNSTORABLE, str(error)) from None
    if kept is KeepResult.ADDRESS_IGNORED:
        metrics.address_ignored()
        log.warning("address_ignored", user_id=str(user.user_id))
    await provisioner.provision(user.user_id)
    return Done(event.source)
