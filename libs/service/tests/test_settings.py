"""Settings from the environment, and errors that can be shown to anyone."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from nexus_messaging.flood import FloodLimit
from nexus_service.settings import ServiceSettings, SettingsError, Token, load

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


AROUND = ("{}\n", "\ufeff{}", "  {}\t", "'{}'", '"{}"\r\n', '\ufeff" {} "\n')


@pytest.mark.parametrize("around", AROUND)
def test_value_is_read_without_what_was_put_around_it(around: str, tmp_path: Path) -> None:
    """Line breaks, a byte order mark, spaces, quotes: one rule for variables and files."""
    wrapped = around.format(COMPLETE["AMQP_URL"])
    secret = tmp_path / "amqp"
    secret.write_bytes(wrapped.encode())

    from_variable = load(ServiceSettings, COMPLETE | {"AMQP_URL": wrapped})
    from_file = load(ServiceSettings, COMPLETE | {"AMQP_URL_FILE": f" {secret}\n"})

    for settings in (from_variable, from_file):
        assert settings.amqp_url.get_secret_value() == COMPLETE["AMQP_URL"]


@pytest.mark.parametrize("within", ["\n", "\r\n", "\x00", "\x85", "\u2028", "\u200b", "\udcff"])
def test_value_with_an_unprintable_character_is_refused(within: str) -> None:
    """Nothing that people write has one, and each is unseen in an editor."""
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings, COMPLETE | {"LOG_LEVEL": f"s3{within}cret"})

    text = "holds a line break or another character that can't be printed"
    assert caught.value.problems == (f"LOG_LEVEL: {text}",)


@pytest.mark.parametrize("blank", [" ", "\n", "\ufeff", '""', "' '"])
def test_value_of_blanks_counts_as_not_set(blank: str) -> None:
    """An empty file is mounted as easily as an empty variable is passed on."""
    with pytest.raises(SettingsError, match="AMQP_URL: not set"):
        load(ServiceSettings, COMPLETE | {"AMQP_URL": blank})


class Keyed(BaseModel):
    """Settings with a secret for an HTTP header."""

    api_key: Token


@pytest.mark.parametrize("key", ["sk_test s3cret", "sk_test_s3\tcret", "sk_test_s3crét"])
def test_token_that_no_header_can_carry_is_refused(key: str) -> None:
    """It would fail before a byte was sent, call by call."""
    with pytest.raises(SettingsError, match="API_KEY") as caught:
        load(Keyed, {"API_KEY": key})

    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.2", "::", "::1", "localhost", "metering_1.internal"])
def test_services_listen_on_a_name_or_an_address(host: str) -> None:
    """An IPv6 address stands there without brackets."""
    assert load(ServiceSettings, COMPLETE | {"HTTP_HOST": host}).http_host == host


@pytest.mark.parametrize("host", ["a..b", "h" * 64, "[[[", "0.0.0.0:80", "h1,h2", "::g", "\u00e9"])
def test_nothing_else_is_listened_on(host: str) -> None:
    """Otherwise the look-up of such a name would end the service with a traceback."""
    with pytest.raises(SettingsError, match="HTTP_HOST: must be one name or IP address"):
        load(ServiceSettings, COMPLETE | {"HTTP_HOST": host})


def test_urls_take_several_hosts() -> None:
    """Each with a port of its own, as libpq reads them."""
    several = {
        "AMQP_URL": "amqp://u:p@h1:5672,h2:5673/v",
        "DATABASE_URL": "postgresql://u:p@h1,h2:5432/d",
    }

    settings = load(ServiceSettings, several)

    assert settings.amqp_url.get_secret_value() == several["AMQP_URL"]
    assert settings.database_url.get_secret_value() == several["DATABASE_URL"]


@pytest.mark.parametrize("name", ["AMQP_URL", "DATABASE_URL"])
def test_list_of_hosts_with_a_bad_one_is_refused(name: str) -> None:
    """The error says which host, and nothing of the URL."""
    url = COMPLETE[name].replace("@h/", "@h1,h2:s3cret/")

    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings, COMPLETE | {name: url})

    assert str(caught.value) == f"{name}: host 2 of its list is no `host:port`"
