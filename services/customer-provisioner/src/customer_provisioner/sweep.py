"""Finishes what no message takes care of any more, such as after a crash."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from customer_provisioner.circuit import CircuitOpenError
from customer_provisioner.following import Follower
from customer_provisioner.metrics import Metrics
from customer_provisioner.provisioning import Provisioner
from customer_provisioner.storage.changes import ChangeStore
from customer_provisioner.storage.reader import ProfileReader
from nexus_database import RowsBusyError
from nexus_messaging.errors import PermanentError, TransientError

BATCH_SIZE: Final = 20
"""Users that one round takes care of, one after the other."""

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
    return await _for_each(due, provisioner.provision, _log_refused_user)


async def sweep_changes(
    changes: ChangeStore,
    follower: Follower,
    metrics: Metrics,
    now: Callable[[], datetime],
) -> bool:
    """Do one round: set the gauge, and send up to ``BATCH_SIZE`` changes that are due.

    Returns:
        Whether there may be more changes that are due.

    Raises:
        DatabaseUnavailableError: the database can't be used.
    """
    metrics.set_change_wait(await changes.waiting_since(), now())
    due = await changes.due(now(), BATCH_SIZE)
    return await _for_each(due, follower.follow, _log_refused_change)


async def _for_each(
    due: Sequence[UUID],
    work: Callable[[UUID], Awaitable[object]],
    log_refused: Callable[[UUID, PermanentError], None],
) -> bool:
    for user_id in due:
        try:
            await work(user_id)
        except PermanentError as error:
            log_refused(user_id, error)
        except RowsBusyError:
            continue  # another transaction holds this user only
        except (TransientError, CircuitOpenError):
            return False  # the cause probably concerns the next user too: all are due again soon
    return len(due) == BATCH_SIZE


def _log_refused_user(user_id: UUID, error: PermanentError) -> None:
    log.warning("user_refused", user_id=str(user_id), error=str(error))


def _log_refused_change(user_id: UUID, error: PermanentError) -> None:
    log.warning("change_refused", user_id=str(user_id), error=str(error))
