"""Which account pays for a user, and from when on: values and the decision only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from customer_provisioner.profile import SOURCE
from customer_provisioner.revisions import next_revision
from nexus_contracts import Event, UserAssigned


@dataclass(frozen=True, slots=True)
class Assignment:
    """One row of ``account_assignments``: from ``since`` on the account pays for the user.

    Attributes:
        user_id: The user, whom nothing else needs to be known of.
        account_id: An organisation's account, or the user's own id.
        since: From when on, until a later assignment.
        revision: Rises with each assignment of the user: of equal ``since`` the highest counts.
        made_at: When it was made here.
        made_by: Who made it: an API key's source, or the command.
    """

    user_id: UUID
    account_id: UUID
    since: datetime
    revision: int
    made_at: datetime
    made_by: str


def assignment_at(history: Sequence[Assignment], at: datetime) -> Assignment | None:
    """Return a user's assignment that holds at a time; None if the user pays for themselves."""
    begun = (each for each in history if each.since <= at)
    return max(begun, key=lambda each: (each.since, each.revision), default=None)


def account_at(history: Sequence[Assignment], user_id: UUID, at: datetime) -> UUID:
    """Return the account that pays for a user at a time, by all assignments of the user."""
    holding = assignment_at(history, at)
    return user_id if holding is None else holding.account_id


def assign(
    history: Sequence[Assignment],
    user_id: UUID,
    account_id: UUID,
    since: datetime | None,
    *,
    now: datetime,
    made_by: str,
) -> Assignment | None:
    """Return the assignment to be added to a user's ``history``; None if it says so already.

    Args:
        history: All assignments of the user.
        user_id: The user.
        account_id: The account that will pay.
        since: From when on; None for now, unless the account pays already.
        now: The time.
        made_by: Who makes it.
    """
    present = assignment_at(history, since or now)
    # With a time of its own it is a fact of its own: one that is made later may begin before it.
    known = since is None or (present is not None and present.since == since)
    if account_at(history, user_id, since or now) == account_id and known:
        return None
    last = max((each.revision for each in history), default=0)
    revision = next_revision(last, now)
    return Assignment(user_id, account_id, since or now, revision, now, made_by)


def announcement(assignment: Assignment) -> Event[UserAssigned]:
    """Return the event that announces an assignment; made again, it is the same event."""
    return Event.of(
        UserAssigned(
            user_id=assignment.user_id,
            account_id=assignment.account_id,
            since=assignment.since,
            revision=assignment.revision,
        ),
        source=SOURCE,
        id=uuid5(assignment.user_id, f"{UserAssigned.TYPE}:{assignment.revision}"),
        time=assignment.made_at,
    )
