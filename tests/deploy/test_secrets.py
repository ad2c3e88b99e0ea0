"""The script that makes the containers' secrets."""

import re
import stat
from pathlib import Path
from typing import Any

from nexus_service.api_keys import key_of, read_api_keys

from .conftest import Script

PROVISIONER_KEY, REPORTER_KEY = "rk_test_" + "p" * 24, "rk_test_" + "r" * 24
KEYS = f"{PROVISIONER_KEY}\n{REPORTER_KEY}\n"
KEY_FILES = ("stripe-secret-key-customer-provisioner", "stripe-secret-key-stripe-reporter")


def keys_in(directory: Path) -> list[str]:
    """Return customer-provisioner's key, then stripe-reporter's."""
    return [(directory / name).read_text().strip() for name in KEY_FILES]


def test_every_mounted_secret_is_made(
    compose: dict[str, Any], make_secrets: Script, secrets_directory: Path
) -> None:
    """With a missing file the stack does not start."""
    make_secrets().check_returncode()

    made = {each.name for each in secrets_directory.iterdir()}

    assert set(compose["secrets"]) <= made
    # The administrator's password is in two other files, and clients have the APIs' keys.
    clients = {"api-key", "accounts-key"}
    assert made - set(compose["secrets"]) == {"broker-password-admin", *clients}


def test_the_made_key_opens_the_apis(make_secrets: Script, secrets_directory: Path) -> None:
    """Its entry has only its hash; keys that an operator configured stay."""
    make_secrets().check_returncode()
    key, entries = (
        (secrets_directory / name).read_text().strip() for name in ("api-key", "api-keys")
    )

    read: Any = read_api_keys(entries)

    assert key_of(f"Bearer {key}", read) is not None
    assert key not in entries
    (secrets_directory / "api-keys").chmod(0o600)
    (secrets_directory / "api-keys").write_text("own:entry")
    make_secrets().check_returncode()
    assert (secrets_directory / "api-keys").read_text() == "own:entry"


def test_only_the_caller_can_enter_the_folder(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """The files are readable for the containers' users; the folder is closed."""
    make_secrets().check_returncode()

    assert stat.S_IMODE(secrets_directory.stat().st_mode) == 0o700


def test_passwords_are_distinct_and_long(make_secrets: Script, secrets_directory: Path) -> None:
    """Each is random: there is no default."""
    make_secrets().check_returncode()

    passwords = [each.read_text().strip() for each in secrets_directory.glob("*-password-*")]

    of_broker, of_databases, of_grafana = 6, 9, 1
    assert len(passwords) == of_broker + of_databases + of_grafana
    assert len(set(passwords)) == len(passwords)
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords)


def test_second_run_keeps_every_secret(make_secrets: Script, secrets_directory: Path) -> None:
    """New passwords would lock the services out of volumes with the old ones."""
    make_secrets().check_returncode()
    before = {each.name: each.read_text() for each in secrets_directory.iterdir()}

    make_secrets().check_returncode()

    assert {each.name: each.read_text() for each in secrets_directory.iterdir()} == before


def test_real_keys_select_the_real_stripe_and_are_not_shown(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """Keys and address change together, so that no real key reaches the local Stripe."""
    make_secrets("emulator").check_returncode()

    done = make_secrets("stripe", stdin=KEYS)

    assert done.returncode == 0
    assert keys_in(secrets_directory) == [PROVISIONER_KEY, REPORTER_KEY]
    assert (secrets_directory / "stripe-api-base").read_text().strip() == ""
    assert not any(key in done.stdout + done.stderr for key in (PROVISIONER_KEY, REPORTER_KEY))
    assert "real Stripe" in done.stderr


def test_each_service_gets_the_secret_of_its_own_endpoint(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """In the order of the keys; either may have none, and then does not listen."""
    names = ("stripe-webhook-secret", "stripe-webhook-secret-stripe-reporter")

    def made(lines: str) -> list[str]:
        make_secrets("stripe", stdin=KEYS + lines).check_returncode()
        return [(secrets_directory / name).read_text().strip() for name in names]

    assert made("whsec_first\nwhsec_second\n") == ["whsec_first", "whsec_second"]
    assert made("\nwhsec_second\n") == ["", "whsec_second"]
    assert made("whsec_first\n") == ["whsec_first", ""]
    assert made("") == ["", ""]


def test_choice_of_stripe_survives_a_second_run(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """Only `emulator` selects the local Stripe again, with a key for each service."""
    make_secrets("stripe", stdin=KEYS).check_returncode()

    make_secrets().check_returncode()
    kept = keys_in(secrets_directory)
    make_secrets("emulator").check_returncode()
    local = keys_in(secrets_directory)

    assert kept == [PROVISIONER_KEY, REPORTER_KEY]
    assert len({*kept, *local}) == 4
    assert "stripe-emulator" in (secrets_directory / "stripe-api-base").read_text()


def test_single_key_of_before_becomes_both_services_key(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """An upgrade keeps the choice of the real Stripe."""
    make_secrets("stripe", stdin=KEYS).check_returncode()
    for name in KEY_FILES:
        (secrets_directory / name).unlink()
    (secrets_directory / "stripe-secret-key").write_text(REPORTER_KEY + "\n")

    done = make_secrets()

    assert keys_in(secrets_directory) == [REPORTER_KEY, REPORTER_KEY]
    assert not (secrets_directory / "stripe-secret-key").exists()
    assert "real Stripe" in done.stderr


def test_input_other_than_two_keys_is_refused(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """A publishable key, a single key or an empty line changes nothing."""
    make_secrets("emulator").check_returncode()
    before = keys_in(secrets_directory)

    texts = ("pk_test_1\npk_test_2\n", REPORTER_KEY + "\n", REPORTER_KEY + "\n\n", "\n", "")
    refused = [make_secrets("stripe", stdin=text) for text in texts]

    assert [done.returncode for done in refused] == [2] * len(texts)
    assert all("two keys of Stripe's" in done.stderr for done in refused)
    assert keys_in(secrets_directory) == before
