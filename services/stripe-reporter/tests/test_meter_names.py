"""Which names of meters stripe-reporter accepts: the same as the ledger."""

import pytest

from nexus_service.settings import SettingsError, load
from stripe_reporter.settings import StripeSettings

KEY = {"STRIPE_SECRET_KEY": "sk_test_1"}


def test_two_meters_are_two_names() -> None:
    """The second meter is optional."""
    one = load(StripeSettings, KEY)
    two = load(StripeSettings, {**KEY, "STRIPE_TOKENS_METER_EVENT_NAME": "tokens_used"})

    assert one.meters == ("tool_call_executed",)
    assert two.meters == ("tool_call_executed", "tokens_used")


@pytest.mark.parametrize("name", ["tool_call_executed", "a\x1bb", "x" * 101])
def test_a_second_meter_of_the_same_or_of_no_possible_name_is_refused(name: str) -> None:
    """Its reports could not be distinguished from the first meter's, or never be sent."""
    with pytest.raises(SettingsError, match="STRIPE_TOKENS_METER_EVENT_NAME"):
        load(StripeSettings, {**KEY, "STRIPE_TOKENS_METER_EVENT_NAME": name})
