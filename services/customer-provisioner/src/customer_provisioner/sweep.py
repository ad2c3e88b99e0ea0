"""Finishing what no message asks for any more: users left between two steps."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from customer_provisioner.inquiries import Inquiries
from customer_provisioner.metrics import Metrics
from customer_provisioner.provisioning import Provisioning
from customer_provisioner.stripe_api import StripePausedError
from nexus_database import RowsBusyError
from nexus_messaging.errors import PermanentError, TransientError

MOST: Final = 20

log = structlog.get_logger()


class Sweep:
    """Takes up the users that are due, one after the other, and shows how many users there are."""

    def __init__(
        self,
        inquiries: Inquiries,
        provisioning: Provisioning,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._inquiries = inquiries
        self._provisioning = provisioning
        self._metrics = metrics
        self._now = now

    async def sweep(self) -> bool:
        """Provision up to ``MOST`` users that are due; tell whether there may be more at once.

        Raises:
            DatabaseUnavailableError: the database can't be used.
        """
        self._metrics.show(await self._inquiries.counts(), self._now())
        due = await self._inquiries.due(self._now(), MOST)
        going = True
        for user_id in due:
            try:
                await self._provisioning.provision(user_id)
            except PermanentError as error:
                log.warning("user_refused", user_id=str(user_id), error=str(error))
            except RowsBusyError:
                continue  # it is this user alone whom another transaction holds
            except (TransientError, StripePausedError):
                # The next user would hardly fare better: all of them are due again soon.
                going = False
                break
        return going and len(due) == MOST
