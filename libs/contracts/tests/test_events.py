"""Every event survives the wire, whatever its values."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nexus_contracts import (
    ALL_EVENTS,
    CountedHour,
    CustomerProvisionedV1,
    Event,
    EventData,
    MeterErrorsFoundV1,
    StripeChangedV1,
    SubscriptionChangedV1,
    SubscriptionItem,
    SubscriptionsReadV1,
    ToolExecutedV1,
    ToolExecutedV2,
    UsageCountedV1,
    UsageRecordedV1,
    UsageRejectedLaterV1,
    UsageRejectedV1,
    UsageReportedV1,
    UsageThresholdReachedV1,
    UserAssignedV1,
    UserCreatedV1,
    UserCreatedV2,
    UserUpdatedV1,
    read_event,
)
from nexus_contracts.user_created import newest, oldest

ID = UUID("018f3a52-8000-7000-8000-000000000001")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200)
moments = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis adds the time zone
    datetime(9998, 12, 30),  # noqa: DTZ001 - likewise
    timezones=st.integers(-840, 840).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
identifiers = st.from_regex(r"[A-Za-z0-9._:-]{1,100}", fullmatch=True)
customers = st.from_regex(r"cus_[A-Za-z0-9_]{1,200}", fullmatch=True)
subscriptions = st.from_regex(r"sub_[A-Za-z0-9_]{1,200}", fullmatch=True)
prices = st.from_regex(r"price_[A-Za-z0-9_]{1,200}", fullmatch=True)
revisions = st.integers(1, 2**63 - 1)
numbers = st.none() | st.integers(0, 999_999_999_999_999)
meters = st.text("abcdef_", min_size=1, max_size=100)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=256)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
plain_keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)

contexts = st.from_regex(r"00-[0-9a-f]{31}1-[0-9a-f]{15}1-[0-9a-f]{2}", fullmatch=True)

quantities = st.none() | st.integers(0, 10_000_000_000)

TOOL_RUN: dict[str, st.SearchStrategy[Any]] = {
    "user_id": st.uuids(),
    "server_id": texts,
    "tool_name": texts,
    "origin": st.sampled_from(["direct", "hub", "job"]),
    "status": st.sampled_from(["succeeded", "failed"]),
    "token_count": quantities,
    "metadata": st.none() | st.dictionaries(plain_keys, json_values, max_size=3),
}


def _stripe_changed(kind: type[EventData]) -> st.SearchStrategy[EventData]:
    return st.builds(
        kind,
        event_id=st.from_regex(r"evt_[A-Za-z0-9_]{1,200}", fullmatch=True),
        event_type=st.from_regex(r"[a-z0-9_]{1,20}(\.[a-z0-9_]{1,20}){1,4}", fullmatch=True),
        object_id=st.from_regex(r"[a-z]{2,4}_[A-Za-z0-9_]{1,200}", fullmatch=True),
        customer_id=st.none() | customers,
        livemode=st.booleans(),
        created=moments,
    )


EVENTS: dict[type[EventData], st.SearchStrategy[EventData]] = {
    ToolExecutedV1: st.builds(ToolExecutedV1, **TOOL_RUN),
    ToolExecutedV2: st.builds(
        ToolExecutedV2,
        **TOOL_RUN,
        model=st.none() | texts,
        input_tokens=quantities,
        output_tokens=quantities,
        cached_tokens=quantities,
    ),
    UserCreatedV1: st.builds(
        UserCreatedV1,
        user_id=st.uuids(),
        email=st.emails(),
        name=st.none() | names,
    ),
    UserCreatedV2: st.builds(
        UserCreatedV2,
        user_id=st.uuids(),
        email=st.none() | st.emails(),
        name=st.none() | names,
        stripe_customer_id=st.none() | customers,
    ),
    UserUpdatedV1: st.builds(
        UserUpdatedV1,
        user_id=st.uuids(),
        email=st.none() | st.emails(),
        name=st.none() | names,
    ),
    CustomerProvisionedV1: st.builds(
        CustomerProvisionedV1,
        user_id=st.uuids(),
        stripe_customer_id=customers,
        generation=st.integers(1, 1_000_000),
    ),
    UserAssignedV1: st.builds(
        UserAssignedV1,
        user_id=st.uuids(),
        account_id=st.uuids(),
        since=moments,
        revision=revisions,
    ),
    SubscriptionChangedV1: st.builds(
        SubscriptionChangedV1,
        subscription_id=subscriptions,
        account_id=st.uuids(),
        stripe_customer_id=customers,
        revision=revisions,
        plan_type=st.none() | texts,
        status=texts,
        seats=numbers,
        items=st.lists(
            st.builds(
                SubscriptionItem,
                price_id=prices,
                product_id=texts,
                lookup_key=st.none() | texts,
                quantity=numbers,
                meter=st.none() | meters,
            ),
            max_size=3,
        ),
        period_start=st.none() | moments,
        period_end=st.none() | moments,
        trial_end=st.none() | moments,
        cancel_at=st.none() | moments,
        ended_at=st.none() | moments,
        plan_since=moments,
        as_of=moments,
    ),
    UsageRecordedV1: st.builds(
        UsageRecordedV1,
        report_id=st.uuids(),
        identifier=identifiers,
        meter=meters,
        value=st.integers(1, 999_999_999_999_999),
        stripe_customer_id=customers,
        dimensions=st.none() | st.dictionaries(texts, texts, max_size=3),
        occurred_at=moments,
        event_count=st.integers(1, 999_999_999_999_999),
        claim_id=st.none() | st.uuids(),
        late=st.booleans(),
    ),
    UsageThresholdReachedV1: st.builds(
        UsageThresholdReachedV1,
        account_id=st.uuids(),
        meter=meters,
        period_start=moments,
        period_end=moments,
        limit_name=texts,
        limit=st.integers(0, 999_999_999_999_999),
        share_percent=st.integers(1, 100),
        used=st.integers(0, 999_999_999_999_999),
        as_of=moments,
    ),
    UsageReportedV1: st.builds(
        UsageReportedV1,
        report_id=st.uuids(),
        identifier=identifiers,
        at=moments,
        ever_unknown=st.booleans(),
    ),
    UsageRejectedV1: st.builds(
        UsageRejectedV1,
        report_id=st.uuids(),
        identifier=identifiers,
        at=moments,
        reason=texts,
        ever_unknown=st.booleans(),
    ),
    UsageRejectedLaterV1: st.builds(
        UsageRejectedLaterV1, report_id=st.uuids(), identifier=identifiers, at=moments, code=texts
    ),
    UsageCountedV1: st.builds(
        UsageCountedV1,
        stripe_customer_id=customers,
        meter=meters,
        start=st.just(NOON),
        end=st.just(NOON + timedelta(hours=24)),
        hours=st.lists(
            st.builds(
                CountedHour,
                start=st.integers(0, 23).map(lambda hour: NOON + timedelta(hours=hour)),
                value=st.floats(allow_nan=False, allow_infinity=False),
            ),
            max_size=3,
            unique_by=lambda hour: hour.start,
        ),
        as_of=moments,
        customer_gone=st.booleans(),
    ),
    SubscriptionsReadV1: st.builds(SubscriptionsReadV1, began_at=moments, ended_at=moments),
    **{kind: _stripe_changed(kind) for kind in (StripeChangedV1, MeterErrorsFoundV1)},
}


def test_every_event_is_covered_here() -> None:
    """A new event without a strategy would go untested."""
    assert set(EVENTS) == set(ALL_EVENTS)


@pytest.mark.parametrize("kind", ALL_EVENTS, ids=lambda kind: kind.TYPE)
@settings(max_examples=40)
@given(values=st.data())
def test_an_event_survives_the_wire(kind: type[EventData], values: st.DataObject) -> None:
    """What is read from an event's body equals the event, to the microsecond and the type."""
    event = Event.of(
        values.draw(EVENTS[kind]),
        source=values.draw(texts),
        id=values.draw(st.uuids()),
        time=values.draw(moments),
        traceparent=values.draw(st.none() | contexts),
    )

    assert read_event(event.body(), ALL_EVENTS) == event
    assert read_event(event.body(), [kind]).body() == event.body()


@pytest.mark.parametrize("hours", [-1, 0, 1001, 24 * 365 * 100])
def test_a_reading_of_sums_is_of_some_hours(hours: int) -> None:
    """A consumer looks up every hour between its start and its end."""
    with pytest.raises(ValidationError, match="end: must come after start"):
        UsageCountedV1(
            stripe_customer_id="cus_1",
            meter="tool_calls",
            start=NOON,
            end=NOON + timedelta(hours=hours),
            hours=[],
            as_of=NOON,
        )


@given(EVENTS[UserCreatedV2])
def test_a_user_in_the_oldest_version_means_the_same(user: UserCreatedV2) -> None:
    """Version 1 is published exactly where it can say all."""
    written = oldest(user)

    assert newest(written) == user
    sayable = user.email is not None and user.stripe_customer_id is None
    assert isinstance(written, UserCreatedV1) is sayable


@pytest.mark.parametrize("field", ["email", "name"])
@pytest.mark.parametrize("kind", [UserCreatedV1, UserCreatedV2, UserUpdatedV1])
def test_repr_of_an_event_holds_no_personal_data(kind: type[EventData], field: str) -> None:
    """A repr ends up in logs and tracebacks."""
    values = {"email": "ada.lovelace@example.com", "name": "Ada Lovelace"}
    event = Event.of(kind(user_id=ID, **values), source="hub", id=ID, time=NOON)

    assert values[field] not in repr(event)
    assert values[field] not in str(event)


def test_repr_of_an_event_holds_no_metadata() -> None:
    """Metadata is the publisher's own, and may hold anything."""
    event = tool_executed(metadata={"prompt": "s3cret"})

    assert "s3cret" not in repr(event)


@pytest.mark.parametrize(
    "build",
    [
        lambda: UserCreatedV1(user_id=ID, email="s3cret has no at sign"),
        lambda: UserCreatedV1(user_id=ID, email="ada@example.com", name="s3cret\n"),
        lambda: UserCreatedV2(user_id=ID, email="s3cret has no at sign"),
        lambda: UserCreatedV2(user_id=ID, stripe_customer_id="s3cret"),
        lambda: UserUpdatedV1(user_id=ID, name="s3cret\n"),
        lambda: tool_executed(server_id="s3cret\x00"),
        lambda: tool_executed(metadata="s3cret"),
        lambda: Event.of(tool_executed().data, source="s3cret\n", id=ID, time=NOON),
    ],
)
def test_error_of_a_wrong_event_names_the_rule_without_the_value(build: Callable[[], Any]) -> None:
    """A publisher's log of our refusal must not leak what was refused."""
    with pytest.raises(ValidationError) as caught:
        build()

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value)


def test_an_event_cannot_be_changed() -> None:
    """What was validated stays what was validated."""
    with pytest.raises(ValidationError):
        tool_executed().data.__setattr__("tool_name", "other")


def test_absent_fields_are_left_out_of_the_body() -> None:
    """Null and absent mean the same; the shorter one is published."""
    assert b"token_count" not in tool_executed().body()
    assert b'"kept":null' in tool_executed(metadata={"kept": None}).body()


def tool_executed(**fields: Any) -> Event[ToolExecutedV1]:
    """Return a tool run, different only where a test says so."""
    values = {
        "user_id": ID,
        "server_id": "weather",
        "tool_name": "forecast",
        "origin": "hub",
        "status": "succeeded",
        **fields,
    }
    return Event.of(ToolExecutedV1(**values), source="hub", id=ID, time=NOON)
