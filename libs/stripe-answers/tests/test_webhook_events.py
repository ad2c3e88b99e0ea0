"""What is read from the body of a webhook, and that no body can do any harm."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_contracts import StripeChanged
from nexus_stripe.webhook_events import read_webhook

SUBSCRIPTION = {"id": "sub_1", "object": "subscription", "customer": "cus_1", "status": "active"}
CUSTOMER = {"id": "cus_2", "object": "customer", "email": "ada@example.com"}
SUMMARY = {"object": "entitlements.active_entitlement_summary", "customer": "cus_3"}
MOMENT = 1_772_368_496

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def snapshot(subject: object = SUBSCRIPTION, **changes: Any) -> dict[str, Any]:
    """Return a snapshot event."""
    return {
        "id": "evt_1",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": MOMENT,
        "data": {"object": subject, "previous_attributes": {}},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "customer.subscription.updated",
        **changes,
    }


def thin(**changes: Any) -> dict[str, Any]:
    """Return a thin event."""
    url = "/v1/billing/meters/mtr_1"
    return {
        "id": "evt_test_2",
        "object": "v2.core.event",
        "created": "2026-03-01T12:34:56.000Z",
        "livemode": False,
        "reason": None,
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": url},
        "type": "v1.billing.meter.error_report_triggered",
        **changes,
    }


def read(event: object) -> StripeChanged | None:
    """Return what is read from an event."""
    return read_webhook(json.dumps(event).encode())


@pytest.mark.parametrize(
    ("event", "object_id", "customer_id"),
    [
        (snapshot(), "sub_1", "cus_1"),
        (snapshot(SUBSCRIPTION | {"customer": CUSTOMER}), "sub_1", "cus_2"),
        (snapshot(SUBSCRIPTION | {"customer": None}), "sub_1", None),
        (snapshot(CUSTOMER, type="customer.deleted"), "cus_2", "cus_2"),
        (snapshot(SUMMARY), "cus_3", "cus_3"),
        (snapshot({"object": "balance"}), "evt_1", None),
        (snapshot({"id": "a new form of id", "object": "x", "customer": 3}), "evt_1", None),
        (thin(), "mtr_1", None),
        (thin(related_object=None), "evt_test_2", None),
        (thin(related_object={"type": "x", "url": "/v1/x"}), "evt_test_2", None),
        (thin(related_object={"id": "cus_1", "type": "customer", "url": "/"}), "cus_1", "cus_1"),
    ],
)
def test_an_event_names_what_to_fetch(
    event: dict[str, Any], object_id: str, customer_id: str | None
) -> None:
    """The object, else the customer it is about, else the event itself."""
    changed = read(event)

    assert changed is not None
    assert (changed.object_id, changed.customer_id) == (object_id, customer_id)
    assert (changed.event_id, changed.event_type) == (event["id"], event["type"])
    assert (int(changed.created.timestamp()), changed.livemode) == (MOMENT, False)


@pytest.mark.parametrize(
    "event",
    [
        [],
        {},
        snapshot(object="charge"),
        snapshot(id="sub_1"),
        snapshot(type="spaces in it"),
        snapshot(type="x" * 300 + ".y"),
        snapshot(created="now"),
        snapshot(created=10**30),
        snapshot(created=-1),
        snapshot(livemode="false"),
        snapshot(data={}),
        snapshot(data=None),
        snapshot([]),
        thin(created=MOMENT),
        thin(related_object=[]),
    ],
)
def test_another_body_is_no_event(event: object) -> None:
    """It is refused as a whole."""
    assert read(event) is None


def test_a_body_that_is_nested_too_deeply_is_no_event() -> None:
    """A thousand brackets would otherwise end in an error of the parser."""
    deep = b"[" * 100_000 + b"]" * 100_000
    event = json.dumps(snapshot(subject="HERE")).encode()

    assert read_webhook(deep) is None
    assert read_webhook(event.replace(b'"HERE"', deep)) is None


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_body_raises(body: bytes) -> None:
    """Whatever it is."""
    assert read_webhook(body) is None


@given(
    st.sampled_from([snapshot(), thin()]),
    st.sampled_from(["id", "object", "created", "data", "livemode", "type", "related_object"]),
    json_values,
)
def test_no_value_of_a_field_raises(event: dict[str, Any], field: str, value: object) -> None:
    """An event is read, or it is not."""
    read(event | {field: value})
    read(snapshot(SUBSCRIPTION | {field: value, "customer": value}))
