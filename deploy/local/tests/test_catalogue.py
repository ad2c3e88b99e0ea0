"""The settings of the parts, and what must not be in their environment or in any text."""

import pytest

from local_stack.catalogue import SERVICES, StackOptions, base_environment, topology_settings
from local_stack.urls import Address, Login, login_of

REPORTER = next(plan for plan in SERVICES if plan.name == "stripe-reporter")
INGEST = next(plan for plan in SERVICES if plan.name == "usage-ingest")


def test_only_the_reporter_has_the_limit_of_calls_to_stripe() -> None:
    """The limit is for one service, the grace for all."""
    options = StackOptions(max_calls_per_second=5, grace_seconds=7)

    assert options.settings_of(REPORTER)["STRIPE_MAX_CALLS_PER_SECOND"] == "5"
    assert "STRIPE_MAX_CALLS_PER_SECOND" not in options.settings_of(INGEST)
    assert options.settings_of(INGEST)["SHUTDOWN_GRACE_SECONDS"] == "7"


def test_a_services_own_settings_take_precedence() -> None:
    """A setting of a test replaces the stack's."""
    options = StackOptions(service_environment={"usage-ingest": {"LOG_FORMAT": "console"}})

    assert options.settings_of(INGEST)["LOG_FORMAT"] == "console"
    assert options.settings_of(REPORTER)["LOG_FORMAT"] == "json"


def test_the_callers_keys_and_proxies_reach_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live key in the developer's shell must never meet a test's events."""
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_live_real")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    assert not {"STRIPE_SECRET_KEY", "HTTPS_PROXY"} & base_environment().keys()


def test_each_broker_user_has_its_password_setting() -> None:
    """The names are those that the topology command reads."""
    settings = topology_settings("http://admin:a@127.0.0.1:1", {"usage-ingest": "b"})

    assert settings["BROKER_PASSWORD_USAGE_INGEST"] == "b"


def test_a_url_can_have_any_password() -> None:
    """Characters with a meaning in URLs are quoted and read back."""
    login = Login("a/b", "p@ss:w/rd?#%")

    for url in (
        Address("127.0.0.1", 1).amqp_url(login, "/"),
        Address("127.0.0.1", 1).postgres_url(login, "x"),
        Address("127.0.0.1", 1).http_url_with(login),
    ):
        assert login_of(url) == login
        assert Address.of(url) == Address("127.0.0.1", 1)


def test_the_text_of_a_login_has_no_password() -> None:
    """A login may be in a message; its password must not."""
    assert "hush" not in repr(Login("operator", "hush"))
