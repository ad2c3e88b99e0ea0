"""What `explain` prints about a user."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from customer_provisioner.changes import UserChange
from customer_provisioner.explanation import describe_change, describe_next_step, explain
from customer_provisioner.profile import HistoryEntry, Profile, State, create_request
from nexus_contracts import UserCreatedV2
from nexus_service.console import rfc_3339

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADA = UserCreatedV2(user_id=UUID(int=1), email="ada@example.com", name="Ada")
NEW = Profile(
    user_id=ADA.user_id,
    email=ADA.email,
    name=ADA.name,
    state=State.PROVISIONING,
    generation=1,
    create_request=create_request(ADA),
    key_n=1,
    key_spent=False,
    call_started_at=None,
    claimed_until=None,
    due_at=NOON,
    attempts=0,
    last_fault=None,
    refused_as=None,
    stripe_customer_id=None,
    provisioned_at=None,
    announced_generation=0,
)
SERVED = replace(NEW, state=State.PROVISIONED, stripe_customer_id="cus_1", provisioned_at=NOON)

CHANGE = UserChange(ADA.user_id, email="eve@example.com", email_as_of=NOON, waiting_since=NOON)


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        (NEW, "the customer is created under this key"),
        (replace(NEW, call_started_at=NOON), "the customer is created again under this key"),
        (replace(NEW, key_spent=True), "the customer is looked up at Stripe"),
        (replace(NEW, claimed_until=NOON + timedelta(seconds=9)), "an attempt is in progress"),
        (replace(NEW, refused_as="email_invalid"), "an operator's action, because Stripe refused"),
        (replace(NEW, link_to="cus_1"), "the customer is checked at Stripe and linked"),
        (
            replace(NEW, link_to="cus_1", refused_as="the customer is deleted"),
            "an operator's action, because the customer to be linked",
        ),
        (SERVED, "the service announces the customer"),
        (replace(SERVED, announced_generation=1), "nothing: the user has a customer"),
    ],
)
def test_every_state_has_a_next_step_in_words(profile: Profile, text: str) -> None:
    """It says who does what."""
    assert describe_next_step(profile, NOON).startswith(text)


def test_an_explanation_has_the_history_and_no_address() -> None:
    """State, key, last fault, every step, and the next one."""
    history = [HistoryEntry(NOON, 1, "kept", None), HistoryEntry(NOON, 1, "refused", "status 400")]

    lines = list(explain(replace(NEW, last_fault="status 400"), history, None, NOON))

    assert lines[0] == f"user {ADA.user_id}: provisioning"
    assert "last fault: status 400" in lines
    assert f"{rfc_3339(NOON)} generation 1 refused (status 400)" in lines
    assert "ada" not in "\n".join(lines).lower()


@pytest.mark.parametrize(
    ("profile", "change", "text"),
    [
        (SERVED, replace(CHANGE, waiting_since=None), "Stripe has it"),
        (NEW, CHANGE, "it waits for the customer"),
        (SERVED, CHANGE, "it is sent to Stripe by its message or by the sweep"),
        (SERVED, replace(CHANGE, refused_as="status 400"), "Stripe refused it (status 400)"),
    ],
)
def test_a_change_is_explained_without_its_values(
    profile: Profile, change: UserChange, text: str
) -> None:
    """When it was said, and whether Stripe has it."""
    shown = describe_change(profile, change)

    assert shown.startswith(f"address of {rfc_3339(NOON)}: {text}")
    assert "eve" not in shown
