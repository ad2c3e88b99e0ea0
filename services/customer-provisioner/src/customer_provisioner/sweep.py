"""Provisions users that no message takes care of any more, such as after a crash."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.metrics import Metrics
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.storage.reader import ProfileReader
from nexus_database import RowsBusyError
from nexus_messaging.errors import PermanentError, TransientError

BATCH_SIZE: Final = 20
"""Users that one round provisions, one after the other."""

log = structlog.get_logger()


async def sweep(
    reader: ProfileReader,
    provisioner: Provisioner,
    metrics: Metrics,
    now: Callable[[], datetime],
) -> bool:
    """Do one round: set the gauges, and provision up to ``BATCH_SIZE`` users that are due.

    Returns:
        Whether there may be more users that are due.

    Raises:
        DatabaseUnavailableError: the database can't be used.
    """
    metrics.set_counts(await reader.counts(), now())
    due = await reader.due(now(), BATCH_SIZE)
    for user_id in due:
        try:
            await provisioner.provision(user_id)
        except PermanentError as error:
            log.warning("user_refused", user_id=str(user_id), error=str(error))
        except RowsBusyError:
            continue  # another transaction holds this user only
        except (TransientError, CircuitOpenError):
            return False  # the cause probably concerns the next user too: all are due again soon
    return len(due) == BATCH_SIZE
