"""What customer-provisioner consumes: a user is kept, then given a customer."""

from typing import Annotated, Final

import structlog
from faststream import Context

from customer_provisioner.metrics import Metrics
from customer_provisioner.profiles import Kept, Profiles
from customer_provisioner.provisioning import Provisioning
from nexus_contracts import Event, UserCreated
from nexus_database import RowRefusedError
from nexus_messaging.clock import utc_now
from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.router import Router
from nexus_messaging.topology import USER_CREATED_QUEUE

PREFETCH: Final = 20
"""Users in hand: creating a customer takes Stripe about a second."""

log = structlog.get_logger()

router = Router()


@router.subscriber(USER_CREATED_QUEUE, prefetch=PREFETCH)
async def provision_user(
    event: Event[UserCreated],
    profiles: Annotated[Profiles, Context()],
    provisioning: Annotated[Provisioning, Context()],
    metrics: Annotated[Metrics, Context()],
) -> Outcome:
    """Return once the user has its customer; see ``Provisioning`` for what is raised."""
    user = event.data
    try:
        kept = await profiles.keep(user, utc_now())
    except RowRefusedError as error:
        raise PermanentError(Reason.UNSTORABLE, str(error)) from None
    if kept is Kept.OTHER_ADDRESS:
        metrics.other_address()
        log.warning("other_address_not_taken", user_id=str(user.user_id))
    await provisioning.provision(user.user_id)
    return Done(event.source)
