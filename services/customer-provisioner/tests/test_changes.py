"""What is known of a user after updates, and what follows, decided from values only."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from customer_provisioner.changes import (
    InProgress,
    NoCustomer,
    Send,
    UpToDate,
    UserChange,
    merge,
    next_step,
)
from nexus_contracts import UserUpdated

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
USER = UUID(int=1)
NOTHING = UserChange(USER)

times = st.integers(0, 3).map(lambda minutes: NOON + timedelta(minutes=minutes))
updates = st.builds(
    UserUpdated,
    user_id=st.just(USER),
    email=st.none() | st.sampled_from(["a@example.com", "b@example.com"]),
    name=st.none() | st.sampled_from(["", "Ada", "Eve"]),
)


def after(events: list[tuple[UserUpdated, datetime]]) -> UserChange:
    """Return what is known after events in this order."""
    change = NOTHING
    for update, time in events:
        change = merge(change, update, time, NOON)
    return change


@given(st.lists(st.tuples(updates, times), max_size=6), st.randoms())
def test_updates_mean_the_same_in_any_order(
    events: list[tuple[UserUpdated, datetime]], random: object
) -> None:
    """Also of one time, also repeated."""
    shuffled = [*events, *events[:2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random
    one, other = after(events), after(shuffled)

    assert (one.email, one.email_as_of) == (other.email, other.email_as_of)
    assert (one.name, one.name_as_of) == (other.name, other.name_as_of)


@given(st.lists(st.tuples(updates, times), max_size=6))
def test_each_field_has_the_value_of_the_latest_update_that_has_it(
    events: list[tuple[UserUpdated, datetime]],
) -> None:
    """What an update leaves out stays."""
    change = after(events)

    for field in ("email", "name"):
        said = [
            (at, getattr(each, field)) for each, at in events if getattr(each, field) is not None
        ]
        assert getattr(change, field) == (max(said)[1] if said else None)


@given(st.lists(st.tuples(updates, times), max_size=4), updates, times)
def test_a_change_waits_exactly_if_a_value_changed(
    events: list[tuple[UserUpdated, datetime]], update: UserUpdated, time: datetime
) -> None:
    """A later event with the same values makes no call."""
    before = replace(after(events), waiting_since=None)

    change = merge(before, update, time, NOON)

    differs = (change.email, change.name) != (before.email, before.name)
    assert (change.waiting_since is not None) is differs
    assert (change.revision > before.revision) is differs


def test_next_step_of_a_change() -> None:
    """It needs a customer, and no other attempt."""
    waiting = replace(NOTHING, name="", name_as_of=NOON, waiting_since=NOON)
    claimed = replace(waiting, claimed_until=NOON + timedelta(seconds=1))

    assert next_step(NOTHING, "cus_1", NOON) == UpToDate()
    assert next_step(waiting, None, NOON) == NoCustomer()
    assert next_step(claimed, "cus_1", NOON) == InProgress()
    assert next_step(waiting, "cus_1", NOON) == Send(USER, "cus_1", 1, {"name": ""})


def test_no_step_shows_an_address_or_a_name() -> None:
    """Steps and changes may be logged."""
    change = UserChange(
        USER, email="ada@example.com", email_as_of=NOON, waiting_since=NOON, name="Ada"
    )

    shown = f"{next_step(change, 'cus_1', NOON)!r} {change!r}"

    assert "ada@" not in shown
    assert "Ada" not in shown
