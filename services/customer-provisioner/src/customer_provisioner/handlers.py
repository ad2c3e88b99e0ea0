"""What happens to a ``user.created``: the user is kept, then given a customer."""

from collections.abc import Callable
from datetime import datetime

import structlog

from customer_provisioner.metrics import Metrics
from customer_provisioner.profiles import Kept, Profiles
from customer_provisioner.provisioning import Provisioning
from nexus_contracts import Event, UserCreated
from nexus_database import RowRefusedError
from nexus_messaging.consumption import Handler
from nexus_messaging.errors import PermanentError
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, Outcome
from nexus_messaging.routes import Routes
from nexus_messaging.topology import USER_CREATED_QUEUE

log = structlog.get_logger()


def user_created_handler(
    routes: Routes,
    profiles: Profiles,
    provisioning: Provisioning,
    metrics: Metrics,
    now: Callable[[], datetime],
) -> Handler:
    """Return the handler of `user.created`."""

    @routes.subscriber(USER_CREATED_QUEUE)
    async def provision_user(event: Event[UserCreated]) -> Outcome:
        """Return once the user has its customer; see ``Provisioning`` for what is raised."""
        user = event.data
        try:
            kept = await profiles.keep(user, now())
        except RowRefusedError as error:
            raise PermanentError(Reason.UNSTORABLE, str(error)) from None
        if kept is Kept.OTHER_ADDRESS:
            metrics.other_address()
            log.warning("other_address_not_taken", user_id=str(user.user_id))
        await provisioning.provision(user.user_id)
        return Done(event.source)

    return provision_user
