"""Which way events go: to the broker, or to the events API."""

import pytest

from nexus_outbox.settings import TransportSettings
from nexus_service.settings import SettingsError, load

BROKER = {"AMQP_URL": "amqp://publisher:secret@broker/metering"}
API = {"EVENTS_API_URL": "https://metering.example.com", "EVENTS_API_KEY": "a-key"}


@pytest.mark.parametrize("environment", [BROKER, API])
def test_one_way_is_enough(environment: dict[str, str]) -> None:
    """Neither secret is in a text of the settings."""
    settings = load(TransportSettings, environment)

    assert "secret" not in repr(settings)
    assert "a-key" not in repr(settings)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        BROKER | API,
        {"EVENTS_API_URL": API["EVENTS_API_URL"]},
        {"EVENTS_API_KEY": API["EVENTS_API_KEY"]},
        BROKER | {"EVENTS_API_KEY": API["EVENTS_API_KEY"]},
    ],
)
def test_no_way_or_two_are_refused(environment: dict[str, str]) -> None:
    """The text names the settings."""
    with pytest.raises(SettingsError, match=r"^set either AMQP_URL, or EVENTS_API_URL and"):
        load(TransportSettings, environment)


@pytest.mark.parametrize("path", ["", "/", "/v1/events", "/v1/events/"])
def test_the_address_may_have_the_path_of_events(path: str) -> None:
    """The loop adds it itself."""
    settings = load(TransportSettings, API | {"EVENTS_API_URL": API["EVENTS_API_URL"] + path})

    assert settings.events_api_url == API["EVENTS_API_URL"]


@pytest.mark.parametrize(
    "url", ["metering.example.com", "https://key@host", "ftp://host", "https:///x"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """It may hold a secret: the text does not repeat it."""
    with pytest.raises(SettingsError, match="EVENTS_API_URL") as raised:
        load(TransportSettings, API | {"EVENTS_API_URL": url})

    assert url not in str(raised.value)
