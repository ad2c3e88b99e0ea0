"""The settings for Stripe."""

import pytest

from customer_provisioner.settings import AdminSettings, Settings, StripeSettings
from nexus_service.settings import SettingsError, load

KEY = {"STRIPE_SECRET_KEY": "sk_test_key"}


@pytest.mark.parametrize("base", ["http://stripe/", "http://stripe/v1", "stripe:12111"])
def test_a_base_with_a_path_is_refused(base: str) -> None:
    """Calls to //v1/customers would get a 404, which looks like an unknown customer."""
    with pytest.raises(SettingsError, match="STRIPE_API_BASE"):
        load(StripeSettings, KEY | {"STRIPE_API_BASE": base})


def test_the_service_refuses_an_administrators_key() -> None:
    """No service has such rights, not even by mistake; the key is not quoted."""
    with pytest.raises(SettingsError, match="STRIPE_ADMIN_KEY: is for the command") as raised:
        load(Settings, {**KEY, "STRIPE_ADMIN_KEY": "sk_test_admin"})

    assert "sk_test_admin" not in str(raised.value)


def test_the_services_key_does_not_take_the_place_of_an_administrators() -> None:
    """The command needs a key of its own."""
    with pytest.raises(SettingsError, match="STRIPE_ADMIN_KEY: not set"):
        load(AdminSettings, KEY)
