"""What happens to a ``user.created``: the user is kept, then given a customer."""

from collections.abc import Callable
from datetime import datetime

import structlog

from customer_provisioner.metrics import Metrics
from customer_provisioner.profiles import Kept, Profiles
from customer_provisioner.provisioning import Provisioning
from nexus_contracts import UserCreated, read_event
from nexus_database import RowRefusedError
from nexus_messaging.consumption import Handler
from nexus_messaging.errors import PermanentError
from nexus_messaging.message import Delivery
from nexus_messaging.reasons import Reason
from nexus_messaging.retry import Done, Outcome

log = structlog.get_logger()


def user_created_handler(
    profiles: Profiles, provisioning: Provisioning, metrics: Metrics, now: Callable[[], datetime]
) -> Handler:
    """Return the handler of the queue ``customer-provisioner.user-created``."""

    async def provision_user(delivery: Delivery) -> Outcome:
        """Return once the user has its customer; see ``Provisioning`` for what is raised."""
        user = read_event(delivery.message.body, [UserCreated]).data
        try:
            kept = await profiles.keep(user, now())
        except RowRefusedError as error:
            raise PermanentError(Reason.UNSTORABLE, str(error)) from None
        if kept is Kept.OTHER_ADDRESS:
            metrics.other_address()
            log.warning("other_address_not_taken", user_id=str(user.user_id))
        await provisioning.provision(user.user_id)
        return Done()

    return provision_user
