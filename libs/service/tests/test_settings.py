"""Settings from the environment; errors quote no values."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from nexus_messaging.flood import FloodLimit
from nexus_service.settings import ServiceSettings, SettingsError, Token, load

COMPLETE = {"AMQP_URL": "amqp://u:s3cret@h/v", "DATABASE_URL": "postgresql://u:s3cret@h/d"}


def test_missing_variables_have_defaults() -> None:
    """Two addresses are enough to start."""
    settings = load(ServiceSettings, COMPLETE)

    assert settings.amqp_url.get_secret_value() == COMPLETE["AMQP_URL"]
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8080)
    assert (settings.shutdown_grace_seconds, settings.log_level) == (20.0, "INFO")


def test_flood_limit_is_read_from_two_settings() -> None:
    """The share and its window; both have defaults."""
    given = {"DEAD_LETTER_SHARE_LIMIT": "1", "DEAD_LETTER_WINDOW": "200"}

    assert load(ServiceSettings, COMPLETE).flood_limit() == FloodLimit(0.5, 1000)
    assert load(ServiceSettings, COMPLETE | given).flood_limit() == FloodLimit(1.0, 200)


def test_all_missing_and_invalid_variables_are_named(tmp_path: Path) -> None:
    """One start shows all problems."""
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

    text = str(caught.value)
    for name in ("AMQP_URL", "HTTP_PORT", "LOG_LEVEL", "SHUTDOWN_GRACE_SECONDS"):
        assert text.count(f"{name}:") == 1
    assert "DATABASE_URL_FILE: can't be read (FileNotFoundError)" in text
    assert "DATABASE_URL: not set" not in text


def test_errors_and_reprs_contain_no_value() -> None:
    """Errors are printed, and tracebacks show settings."""
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings, COMPLETE | {"HTTP_PORT": "s3cret", "LOG_FORMAT": "s3cret"})

    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value)
    assert "s3cret" not in repr(load(ServiceSettings, COMPLETE))


def test_file_value_is_read_without_newline(tmp_path: Path) -> None:
    """Mounted secrets end with a newline; the file overrides the variable."""
    secret = tmp_path / "amqp"
    secret.write_text("amqp://from.file/\n", encoding="utf-8")

    settings = load(ServiceSettings, COMPLETE | {"AMQP_URL_FILE": str(secret)})

    assert settings.amqp_url.get_secret_value() == "amqp://from.file/"


def test_binary_file_is_named(tmp_path: Path) -> None:
    """The error does not quote its bytes."""
    secret = tmp_path / "amqp"
    secret.write_bytes(b"\xff\xfe")

    with pytest.raises(SettingsError, match=r"AMQP_URL_FILE: can't be read \(UnicodeDecodeError\)"):
        load(ServiceSettings, COMPLETE | {"AMQP_URL_FILE": str(secret)})


def test_empty_variable_counts_as_not_set() -> None:
    """Compose files pass empty strings for unset variables."""
    with pytest.raises(SettingsError, match="AMQP_URL: not set"):
        load(ServiceSettings, COMPLETE | {"AMQP_URL": ""})


AROUND = ("{}\n", "\ufeff{}", "  {}\t", "'{}'", '"{}"\r\n', '\ufeff" {} "\n')


@pytest.mark.parametrize("around", AROUND)
def test_outer_spaces_and_quotes_are_removed(around: str, tmp_path: Path) -> None:
    """Also line breaks and a byte order mark; the same for variables and files."""
    wrapped = around.format(COMPLETE["AMQP_URL"])
    secret = tmp_path / "amqp"
    secret.write_bytes(wrapped.encode())

    from_variable = load(ServiceSettings, COMPLETE | {"AMQP_URL": wrapped})
    from_file = load(ServiceSettings, COMPLETE | {"AMQP_URL_FILE": f" {secret}\n"})

    for settings in (from_variable, from_file):
        assert settings.amqp_url.get_secret_value() == COMPLETE["AMQP_URL"]


@pytest.mark.parametrize("within", ["\n", "\r\n", "\x00", "\x85", "\u2028", "\u200b", "\udcff"])
def test_value_with_an_unprintable_character_is_refused(within: str) -> None:
    """No valid value contains one, and an editor does not show it."""
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings, COMPLETE | {"LOG_LEVEL": f"s3{within}cret"})

    text = "holds a line break or another character that can't be printed"
    assert caught.value.problems == (f"LOG_LEVEL: {text}",)


@pytest.mark.parametrize("blank", [" ", "\n", "\ufeff", '""', "' '"])
def test_blank_value_counts_as_not_set(blank: str) -> None:
    """In a file and in a variable."""
    with pytest.raises(SettingsError, match="AMQP_URL: not set"):
        load(ServiceSettings, COMPLETE | {"AMQP_URL": blank})


class Keyed(BaseModel):
    """Settings with a secret for an HTTP header."""

    api_key: Token


@pytest.mark.parametrize("key", ["sk_test s3cret", "sk_test_s3\tcret", "sk_test_s3crét"])
def test_token_invalid_in_a_header_is_refused(key: str) -> None:
    """Otherwise each call would fail before it is sent."""
    with pytest.raises(SettingsError, match="API_KEY") as caught:
        load(Keyed, {"API_KEY": key})

    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.2", "::", "::1", "localhost", "metering_1.internal"])
def test_http_host_takes_name_or_address(host: str) -> None:
    """An IPv6 address has no brackets."""
    assert load(ServiceSettings, COMPLETE | {"HTTP_HOST": host}).http_host == host


@pytest.mark.parametrize("host", ["a..b", "h" * 64, "[[[", "0.0.0.0:80", "h1,h2", "::g", "\u00e9"])
def test_http_host_that_is_neither_is_refused(host: str) -> None:
    """Otherwise its look-up would end the service with a traceback."""
    with pytest.raises(SettingsError, match="HTTP_HOST: must be one name or IP address"):
        load(ServiceSettings, COMPLETE | {"HTTP_HOST": host})


def test_urls_take_several_hosts() -> None:
    """Each with its own port, as in libpq."""
    several = {
        "AMQP_URL": "amqp://u:p@h1:5672,h2:5673/v",
        "DATABASE_URL": "postgresql://u:p@h1,h2:5432/d",
    }

    settings = load(ServiceSettings, several)

    assert settings.amqp_url.get_secret_value() == several["AMQP_URL"]
    assert settings.database_url.get_secret_value() == several["DATABASE_URL"]


@pytest.mark.parametrize("name", ["AMQP_URL", "DATABASE_URL"])
def test_list_with_invalid_host_is_refused(name: str) -> None:
    """The error says which host, and nothing of the URL."""
    url = COMPLETE[name].replace("@h/", "@h1,h2:s3cret/")

    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings, COMPLETE | {name: url})

    assert str(caught.value) == f"{name}: host 2 of its list is no `host:port`"
