"""Settings from the environment, and errors that can be shown to anyone."""

from pathlib import Path

import pytest

from nexus_messaging.flood import FloodLimit
from nexus_messaging.settings import ServiceSettings, SettingsError, load

COMPLETE = {"AMQP_URL": "amqp://u:s3cret@h/v", "DATABASE_URL": "postgresql://u:s3cret@h/d"}


def test_defaults_stand_where_nothing_is_said() -> None:
    """Two addresses are enough to start."""
    settings = load(ServiceSettings, COMPLETE)

    assert settings.amqp_url.get_secret_value() == COMPLETE["AMQP_URL"]
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8080)
    assert (settings.shutdown_grace_seconds, settings.log_level) == (20.0, "INFO")


def test_what_counts_as_a_flood_is_told_by_two_settings() -> None:
    """A share and the window that it is of; nobody has to say either."""
    given = {"DEAD_LETTER_SHARE_LIMIT": "1", "DEAD_LETTER_WINDOW": "200"}

    assert load(ServiceSettings, COMPLETE).flood_limit() == FloodLimit(0.5, 1000)
    assert load(ServiceSettings, COMPLETE | given).flood_limit() == FloodLimit(1.0, 200)


def test_all_that_is_missing_or_wrong_is_named_at_once(tmp_path: Path) -> None:
    """Nobody should have to start a service five times to learn what it needs."""
    with pytest.raises(SettingsError) as caught:
        load(
            ServiceSettings,
            {
                "HTTP_PORT": "s3cret",
                "LOG_LEVEL": "s3cret",
                "SHUTDOWN_GRACE_SECONDS": "-1",
                "DATABASE_URL_FILE": str(tmp_path / "absent"),
            },
        )

    told = str(caught.value)
    for name in ("AMQP_URL", "HTTP_PORT", "LOG_LEVEL", "SHUTDOWN_GRACE_SECONDS"):
        assert told.count(f"{name}:") == 1
    assert "DATABASE_URL_FILE: can't be read (FileNotFoundError)" in told
    assert "DATABASE_URL: not set" not in told


def test_no_value_enters_an_error_or_a_repr() -> None:
    """Errors are printed at start, settings end up in tracebacks."""
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings, COMPLETE | {"HTTP_PORT": "s3cret", "LOG_FORMAT": "s3cret"})

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value)
    assert "s3cret" not in repr(load(ServiceSettings, COMPLETE))


def test_a_file_gives_a_value_without_its_last_newline(tmp_path: Path) -> None:
    """As secrets are mounted; the file goes before the plain variable."""
    secret = tmp_path / "amqp"
    secret.write_text("amqp://from.file/\n", encoding="utf-8")

    settings = load(ServiceSettings, COMPLETE | {"AMQP_URL_FILE": str(secret)})

    assert settings.amqp_url.get_secret_value() == "amqp://from.file/"


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """A binary file mounted by mistake is told, its bytes are not."""
    secret = tmp_path / "amqp"
    secret.write_bytes(b"\xff\xfe")

    with pytest.raises(SettingsError, match=r"AMQP_URL_FILE: can't be read \(UnicodeDecodeError\)"):
        load(ServiceSettings, COMPLETE | {"AMQP_URL_FILE": str(secret)})


def test_an_empty_variable_counts_as_not_set() -> None:
    """Compose files pass on empty strings for what is not set."""
    with pytest.raises(SettingsError, match="AMQP_URL: not set"):
        load(ServiceSettings, COMPLETE | {"AMQP_URL": ""})
