"""What is sent to Stripe for a report, and the settings and checks around it."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from nexus_contracts import UsageRecorded
from nexus_service.settings import SettingsError, load
from nexus_stripe.meters import Meter
from stripe_reporter.reports import Report, idempotency_key
from stripe_reporter.settings import Settings
from stripe_reporter.stripe.checks import fault, skew

AT = datetime(2026, 1, 1, 12, 0, 0, 900_000, tzinfo=UTC)
DATA = UsageRecorded(
    report_id=UUID(int=1),
    identifier="r-1",
    meter="tool_call_executed",
    value=12,
    stripe_customer_id="cus_1",
    dimensions={"tool_name": "forecast"},
    occurred_at=AT,
    event_count=12,
)
REPORT = Report.of(DATA)
ENVIRONMENT = {
    "AMQP_URL": "amqp://x",
    "DATABASE_URL": "postgresql://x",
    "STRIPE_SECRET_KEY": "sk_test_x",
}


def test_the_request_is_what_stripe_documents() -> None:
    """Quantities are plain strings, times whole seconds, dimensions are part of the payload."""
    assert REPORT.request() == {
        "event_name": "tool_call_executed",
        "identifier": "r-1",
        "timestamp": 1767268800,
        "payload": {"stripe_customer_id": "cus_1", "value": "12", "tool_name": "forecast"},
    }


def test_a_dimension_never_redirects_a_charge() -> None:
    """A dimension named like one of our own payload keys loses."""
    dimensions = (("stripe_customer_id", "cus_2"), ("value", "1000"))

    payload = replace(REPORT, dimensions=dimensions).request()["payload"]

    assert payload == {"stripe_customer_id": "cus_1", "value": "12"}


def test_the_idempotency_key_begins_with_the_identifier() -> None:
    """Stripe's asynchronous error reports name the key only."""
    assert idempotency_key("r-1", 2) == "r-1:2"


def test_a_meter_that_differs_is_named() -> None:
    """A meter that counts otherwise than reports need it is a fault, and so is a missing one."""
    assert fault("x", [Meter("x")]) is None
    assert "not found" in str(fault("x", [Meter("y")]))
    assert "formula is 'count'" in str(fault("x", [Meter("x", formula="count")]))
    assert "time_window is 'day'" in str(fault("x", [Meter("x", time_window="day")]))


def test_a_clock_that_is_off_is_named() -> None:
    """Seconds are normal, a minute is not: ages and times ahead are judged by both clocks."""
    assert skew(1000.0, 1030.0) is None
    assert skew(1000.0, 1090.0) == "+90 s from Stripe's"
    assert skew(1000.0, 900.0) == "-100 s from Stripe's"
    assert skew(None, 900.0) == "Stripe did not say its time"


@pytest.mark.parametrize(
    ("key", "rate"),
    [("sk_test_x", 20.0), ("rk_test_x", 20.0), ("sk_live_x", 900.0), ("rk_live_x", 900.0)],
)
def test_the_kind_of_key_sets_the_rate(key: str, rate: float) -> None:
    """A sandbox takes far fewer calls than a live account."""
    settings = load(Settings, {**ENVIRONMENT, "STRIPE_SECRET_KEY": key})

    assert settings.calls_per_second == rate
    assert settings.live == ("live" in key)


def test_a_publishable_key_is_refused_without_being_shown() -> None:
    """The likeliest mistake is found at start, and no key gets into a log."""
    with pytest.raises(SettingsError) as caught:
        load(Settings, {**ENVIRONMENT, "STRIPE_SECRET_KEY": "pk_live_visible"})

    assert "STRIPE_SECRET_KEY" in str(caught.value)
    assert "pk_live_visible" not in str(caught.value)
