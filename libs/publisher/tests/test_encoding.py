"""Events as bytes: what the contract's reader makes of whatever a host passes."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import (
    MAX_BODY_BYTES,
    EventData,
    InvalidEventError,
    ToolExecutedV1,
    ToolExecutedV2,
    UserCreatedV1,
    UserCreatedV2,
    read_event,
)
from nexus_publisher.encoding import Envelope, encode, run_version, user_version
from nexus_publisher.ids import new_id

USER = "018f3a52-7c1e-7d3a-9f00-5a2b6c7d8e9f"
RUN: dict[str, object] = {
    "user_id": USER,
    "server_id": "weather",
    "tool_name": "forecast",
    "origin": "hub",
    "status": "succeeded",
    "token_count": 7,
}
ENVELOPE = Envelope(new_id(), "hub", datetime(2026, 3, 1, tzinfo=UTC), None)

cyclic: dict[str, Any] = {}
cyclic["again"] = cyclic
nested: list[Any] = []
for _ in range(100_000):
    nested = [nested]

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.binary() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({"token_count": 7, "model": None, "cached_tokens": None}, ToolExecutedV1),
        ({"model": "small"}, ToolExecutedV2),
        ({"cached_tokens": 0}, ToolExecutedV2),
    ],
)
def test_a_run_has_the_oldest_version_that_can_say_it(
    fields: dict[str, object], version: type[EventData]
) -> None:
    """So that a release of metering that reads version 1 alone loses nothing that it can read."""
    assert run_version({**RUN, **fields}) is version
    event = read_event(encode(version, {**RUN, **fields}, ENVELOPE).body, (version,))
    assert event.data == version.model_validate({**RUN, **fields, "user_id": UUID(USER)})


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({"email": "ada@example.com"}, UserCreatedV1),
        ({"email": None, "name": "Ada"}, UserCreatedV2),
        ({"email": "ada@example.com", "stripe_customer_id": "cus_1"}, UserCreatedV2),
    ],
)
def test_a_user_has_the_oldest_version_that_can_say_it(
    fields: dict[str, object], version: type[EventData]
) -> None:
    """Version 2 is for users without an address or with a customer."""
    assert user_version(fields) is version


def test_event_is_what_the_contract_reads() -> None:
    """A user may be named by a UUID or by its text."""
    for user in (USER, UUID(USER)):
        encoded = encode(ToolExecutedV1, {**RUN, "user_id": user, "metadata": {"a": [1]}}, ENVELOPE)

        event = read_event(encoded.body, (ToolExecutedV1,))
        assert not encoded.left_out
        assert (event.id, event.time, event.source) == (ENVELOPE.id, ENVELOPE.time, "hub")
        assert event.data.user_id == UUID(USER)
        assert event.data.metadata == {"a": [1]}


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": object()},
        {1: "a"},
        ["a"],
        "text",
        cyclic,
        {"a": nested},
        {"a": "\ud800"},
        {"a": float("nan")},
        {"a": "x" * MAX_BODY_BYTES},
        {"a": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
    ids=range(10),
)
def test_metadata_that_is_no_json_is_left_out_and_the_run_is_billed(metadata: object) -> None:
    """It has no effect on billing, so that it must not cost the event."""
    encoded = encode(ToolExecutedV1, {**RUN, "metadata": metadata}, ENVELOPE)

    assert encoded.left_out
    event = read_event(encoded.body, (ToolExecutedV1,))
    assert event.data.token_count == 7
    assert event.data.metadata is None


@given(metadata=anything)
def test_whatever_the_metadata_the_event_is_readable(metadata: object) -> None:
    """Nothing that a host passes makes an event that the ledger's reader refuses."""
    encoded = encode(ToolExecutedV1, {**RUN, "metadata": metadata}, ENVELOPE)

    assert read_event(encoded.body, (ToolExecutedV1,)).data.tool_name == "forecast"


@given(field=st.sampled_from(sorted(RUN)), value=anything)
def test_a_wrong_field_is_named_without_its_value(field: str, value: object) -> None:
    """Whatever its type; what is not refused is read by the contract's reader."""
    fields: Mapping[str, object] = {**RUN, field: value}
    try:
        encoded = encode(ToolExecutedV1, fields, ENVELOPE)
    except InvalidEventError as error:
        assert str(error).startswith((field, "body: "))  # noqa: PT017 - or no error at all
    else:
        assert read_event(encoded.body, (ToolExecutedV1,)).data.tool_name


def test_address_is_in_no_error() -> None:
    """It is personal."""
    with pytest.raises(InvalidEventError) as caught:
        encode(UserCreatedV1, {"user_id": USER, "email": "ada at example.com"}, ENVELOPE)

    assert str(caught.value) == "email: must be an e-mail address"


@pytest.mark.parametrize("time", [datetime(2026, 1, 1), "2026-01-01T00:00:00Z", 5])  # noqa: DTZ001
def test_time_without_an_offset_is_refused(time: Any) -> None:
    """A text would be readable, but the host meant to pass a time; its class says so."""
    envelope = Envelope(new_id(), "hub", time, None)
    if time == "2026-01-01T00:00:00Z":
        assert json.loads(encode(ToolExecutedV1, RUN, envelope).body)["time"] == time
        return
    with pytest.raises(InvalidEventError, match="time"):
        encode(ToolExecutedV1, RUN, envelope)


def test_ids_are_of_version_7_unique_and_sort_by_time() -> None:
    """https://www.rfc-editor.org/rfc/rfc9562#section-5.7."""
    ids = [new_id() for _ in range(1000)]

    assert {each.version for each in ids} == {7}
    assert {each.variant for each in ids} == {"specified in RFC 4122"}
    assert len(set(ids)) == 1000
    times = [each.int >> 80 for each in ids]
    assert times == sorted(times)
