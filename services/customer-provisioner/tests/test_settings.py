"""The settings for Stripe."""

import pytest

from customer_provisioner.settings import StripeSettings
from nexus_service.settings import SettingsError, load

KEY = {"STRIPE_SECRET_KEY": "sk_test_key"}


@pytest.mark.parametrize("base", ["http://stripe/", "http://stripe/v1", "stripe:12111"])
def test_a_base_with_a_path_is_refused(base: str) -> None:
    """Calls to //v1/customers would get a 404, which looks like an unknown customer."""
    with pytest.raises(SettingsError, match="STRIPE_API_BASE"):
        load(StripeSettings, KEY | {"STRIPE_API_BASE": base})
