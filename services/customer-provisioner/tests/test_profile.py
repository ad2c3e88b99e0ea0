"""The next step for a user, decided from its row and the time only."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer_provisioner.profile import (
    KEY_REPEATABLE_FOR,
    Create,
    InProgress,
    Link,
    LookUp,
    Profile,
    Provisioned,
    State,
    announcement,
    create_request,
    next_step,
)
from nexus_contracts import UserCreatedV2

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

moments = st.datetimes(
    NOON.replace(tzinfo=None) - timedelta(days=3), NOON.replace(tzinfo=None) + timedelta(days=3)
).map(lambda moment: moment.replace(tzinfo=UTC))
profiles = st.builds(
    replace,
    st.just(NEW),
    generation=st.integers(1, 5),
    key_n=st.integers(1, 5),
    key_spent=st.booleans(),
    call_started_at=st.none() | moments,
    claimed_until=st.none() | moments,
    refused_as=st.none() | st.just("refused"),
    link_to=st.none() | st.just("cus_1"),
)


@given(profiles, moments)
def test_a_creation_is_repeated_only_under_a_valid_key(profile: Profile, now: datetime) -> None:
    """A spent key is never sent again, nor one first sent 20 hours ago; a link's key likewise."""
    step = next_step(profile, now)

    if isinstance(step, Create | Link):
        started = profile.call_started_at
        assert not profile.key_spent
        assert started is None or now - started < KEY_REPEATABLE_FOR


@given(profiles, moments)
def test_a_creation_sends_the_stored_request_and_key(profile: Profile, now: datetime) -> None:
    """The body is never rebuilt, so that the same key always comes with the same body."""
    step = next_step(profile, now)

    if isinstance(step, Create):
        assert step.body is profile.create_request
        assert step.key == profile.idempotency_key


@given(profiles, moments)
def test_a_user_to_be_linked_is_never_given_a_new_customer(profile: Profile, now: datetime) -> None:
    """The link has the key of a creation that may be in progress: Stripe executes one of them."""
    step = next_step(profile, now)

    assert not (isinstance(step, Create) and profile.link_to)
    if isinstance(step, Link):
        assert (step.key, step.customer_id) == (profile.idempotency_key, profile.link_to)


@given(profiles, moments)
def test_a_look_up_covers_all_repetitions_of_its_key(profile: Profile, now: datetime) -> None:
    """An hour before the first call, and after the last one."""
    step = next_step(profile, now)

    if isinstance(step, LookUp):
        first = profile.call_started_at or now
        assert step.created_from == first - timedelta(hours=1)
        assert step.created_to == first + timedelta(hours=21)


@given(profiles, moments)
def test_a_claimed_user_is_left_alone_until_the_claim_ends(profile: Profile, now: datetime) -> None:
    """No step is taken before, and one is taken from then on."""
    claimed = profile.claimed_until is not None and profile.claimed_until > now

    assert isinstance(next_step(profile, now), InProgress) is claimed


@given(profiles, moments)
def test_no_step_shows_an_address_or_a_name(profile: Profile, now: datetime) -> None:
    """Steps and profiles may be logged."""
    shown = f"{next_step(profile, now)!r} {profile!r}"

    assert "ada@" not in shown
    assert "Ada" not in shown


@given(profiles, profiles)
def test_keys_differ_by_generation_and_number(one: Profile, other: Profile) -> None:
    """Two requests that may differ never share a key."""
    same = (one.generation, one.key_n) == (other.generation, other.key_n)

    assert (one.idempotency_key == other.idempotency_key) is same


@pytest.mark.parametrize(
    ("hours", "spent", "expected"),
    [
        (None, False, Create),
        (0, False, Create),
        (19.99, False, Create),
        (20, False, LookUp),
        (500, False, LookUp),
        (1, True, LookUp),
    ],
)
def test_a_creation_is_repeated_for_20_hours_then_looked_up(
    *, hours: float | None, spent: bool, expected: type
) -> None:
    """Stripe forgets keys after 24 hours; a 500 spends a key at once."""
    started = None if hours is None else NOON - timedelta(hours=hours)

    step = next_step(replace(NEW, call_started_at=started, key_spent=spent), NOON)

    assert isinstance(step, expected)


def test_a_user_with_a_customer_needs_no_step() -> None:
    """Whatever else is in the row."""
    served = replace(SERVED, call_started_at=NOON - timedelta(days=9))

    assert next_step(served, NOON) == Provisioned("cus_1")


def test_an_idempotency_key_has_the_documented_form() -> None:
    """User and generation, and the number from the second key on."""
    renewed = replace(NEW, generation=2, key_n=3)

    assert NEW.idempotency_key == f"customer-create:{ADA.user_id}:1"
    assert renewed.idempotency_key == f"customer-create:{ADA.user_id}:2:3"


@pytest.mark.parametrize("name", [None, ""])
def test_an_empty_name_is_not_sent(name: str | None) -> None:
    """To Stripe an empty string means to unset the field."""
    user = UserCreatedV2(user_id=UUID(int=2), email="eve@example.com", name=name)

    assert create_request(user) == {
        "email": "eve@example.com",
        "metadata": {"user_id": str(user.user_id)},
    }


def test_an_announcement_made_again_is_the_same_event() -> None:
    """Two relays, or one relay twice, publish the same event."""
    assert announcement(SERVED).body() == announcement(replace(SERVED, attempts=7)).body()


def test_each_generation_is_announced_by_its_own_event() -> None:
    """With the same id it would count as a duplicate of the previous one."""
    later = replace(SERVED, generation=2, stripe_customer_id="cus_2")

    assert announcement(later).id != announcement(SERVED).id
    assert announcement(later).data.generation == 2


def test_a_user_without_a_customer_is_not_announced() -> None:
    """The event needs the customer's id."""
    with pytest.raises(ValueError, match="without a customer"):
        announcement(NEW)
