"""The statements that change profiles, and the words for what they did.

Each changes a profile only if generation and key are still those of its attempt.
"""

from enum import Enum, StrEnum, auto
from typing import Final

from sqlalchemy import TextClause, text

from customer_provisioner.profile import State
from customer_provisioner.storage.reader import SELECT


class KeepResult(Enum):
    """What became of the user in a ``user.created``."""

    NEW = auto()
    SAME = auto()
    ADDRESS_REPLACED = auto()
    ADDRESS_IGNORED = auto()
    OTHER_KIND = auto()
    """The id of the organisation is a user's."""


class StoreResult(Enum):
    """What became of a customer that Stripe created or had."""

    STORED = auto()
    ALREADY_STORED = auto()
    SURPLUS = auto()
    TAKEN = auto()
    """It is another user's by our table: the user is refused."""


class Failure(Enum):
    """What a failed attempt means for the next one."""

    RETRYABLE = auto()
    """It may repeat this one as it was."""
    KEY_SPENT = auto()
    """The key can't bring a customer any more, but may have brought one."""
    REFUSED = auto()
    """Only a message begins another attempt."""


class Step(StrEnum):
    """The steps in a user's history."""

    KEPT = "kept"
    LINK_ASKED = "link_asked"
    CREATE_SENT = "create_sent"
    KEY_SPENT = "key_spent"
    REFUSED = "refused"
    NOT_FOUND = "not_found"
    CREATED = "created"
    ADOPTED = "adopted"
    LINKED = "linked"
    LINK_REFUSED = "link_refused"
    ANNOUNCED = "announced"
    REPROVISION_ASKED = "reprovision_asked"
    ADDRESS_REPLACED = "address_replaced"
    CHANGE_SENT = "change_sent"
    CHANGE_REFUSED = "change_refused"
    CUSTOMER_DELETED = "customer_deleted"


INSERT: Final = text("""
INSERT INTO user_profiles
       (user_id, email, name, create_request, state, generation, key_n, key_spent, due_at, attempts,
        announced_generation, created_at, updated_at, link_to, organisation)
VALUES (:user_id, :email, :name, CAST(:create_request AS jsonb), :state, 1, 1, false,
        :due_at, 0, 0, :now, :now, :link_to, :organisation)
ON CONFLICT DO NOTHING
RETURNING user_id
""")

LOCK: Final = text(f"{SELECT} WHERE user_id = :user_id FOR UPDATE")

LOCK_FREE: Final = text("""
SELECT user_id FROM user_profiles
 WHERE user_id = ANY(CAST(:user_ids AS uuid[])) FOR UPDATE SKIP LOCKED
""")

# Two users may be about to be linked to one customer: the second waits here for the first.
LOCK_CUSTOMER: Final = text("SELECT pg_advisory_xact_lock(hashtextextended(:customer_id, 0))")

TAKEN: Final = text("""
SELECT EXISTS (
    SELECT FROM user_profiles
     WHERE user_id <> :user_id
       AND (stripe_customer_id = :customer_id
            OR (link_to = :customer_id AND call_started_at IS NOT NULL AND refused_as IS NULL)))
""")

FORMER: Final = text("""
SELECT DISTINCT detail FROM provisioning_steps
 WHERE user_id = :user_id AND step = 'reprovision_asked' AND detail IS NOT NULL
""")

RECORD: Final = text("""
INSERT INTO provisioning_steps (user_id, generation, step, detail, at)
VALUES (:user_id, :generation, :step, :detail, :now)
""")


def _update(assignments: str, state: State = State.PROVISIONING) -> TextClause:
    served = "=" if state is State.PROVISIONED else "<>"
    return text(f"""
UPDATE user_profiles SET {assignments}, updated_at = :now
 WHERE user_id = :user_id AND generation = :generation AND key_n = :key_n
   AND state {served} 'provisioned'
RETURNING generation
""")  # noqa: S608 - assignments of ours, no values


REPLACE_ADDRESS: Final = _update(
    "email = :email, name = :name, create_request = CAST(:create_request AS jsonb)"
)

ASK_LINK: Final = _update("state = 'linking', link_to = :link_to")

_LEASE: Final = "claimed_until = :lease_end, due_at = :lease_end"
CLAIM_CREATE: Final = _update(
    f"{_LEASE}, call_started_at = coalesce(call_started_at, :now), attempts = attempts + 1"
)
CLAIM_LOOK_UP: Final = _update(_LEASE)

STORE: Final = _update("""
       state = 'provisioned', stripe_customer_id = :customer_id, provisioned_at = :now,
       claimed_until = NULL, refused_as = NULL, link_to = NULL, traceparent = :traceparent""")

_RELEASE: Final = "claimed_until = NULL, due_at = :due_at"
RENEW_KEY: Final = _update(f"""
       {_RELEASE}, key_n = key_n + 1, key_spent = false, call_started_at = NULL,
       refused_as = NULL""")
FAIL: Final = {
    Failure.RETRYABLE: (_update(f"{_RELEASE}, last_fault = :fault"), None),
    Failure.KEY_SPENT: (
        _update(f"{_RELEASE}, last_fault = :fault, key_spent = true"),
        Step.KEY_SPENT,
    ),
    Failure.REFUSED: (
        _update(f"""{_RELEASE}, last_fault = :fault, key_spent = true, refused_as = :fault,
            call_started_at = coalesce(call_started_at, :now)"""),
        Step.REFUSED,
    ),
}

NEXT_GENERATION: Final = _update(
    """
       state = :state, link_to = :link_to, generation = generation + 1, key_n = 1,
       key_spent = false, call_started_at = NULL, attempts = 0, last_fault = NULL,
       stripe_customer_id = NULL, provisioned_at = NULL, due_at = :now""",
    State.PROVISIONED,
)

GIVE_UP_LINK: Final = _update(
    "state = 'provisioning', link_to = NULL, refused_as = NULL, due_at = :now"
)

PRESENT_ADDRESS: Final = text("SELECT email FROM user_changes WHERE user_id = :user_id")

CORRECT_ADDRESS: Final = _update(
    """
       email = :email, create_request = CAST(:create_request AS jsonb), refused_as = NULL,
       due_at = :now"""
)

# The new customer may lack what changed since the first address.
SEND_CHANGES: Final = text("""
UPDATE user_changes
   SET waiting_since = coalesce(waiting_since, :now), due_at = :now, refused_as = NULL,
       revision = revision + 1
 WHERE user_id = :user_id
""")

# They were stored before their customer.
GIVE_SUBSCRIPTIONS: Final = text("""
UPDATE subscriptions SET account_id = :user_id
 WHERE stripe_customer_id = :customer_id AND account_id IS NULL
""")

NOTE_DELETED: Final = text("""
UPDATE user_profiles SET deleted_customer_id = :customer_id, updated_at = :now
 WHERE stripe_customer_id = :customer_id AND deleted_customer_id IS DISTINCT FROM :customer_id
RETURNING user_id, generation
""")

MARK_ANNOUNCED: Final = _update("announced_generation = :generation", State.PROVISIONED)
