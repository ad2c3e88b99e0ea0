"""The script that makes the containers' secrets."""

import re
import stat
from pathlib import Path
from typing import Any

from .conftest import Script

KEY = "sk_test_" + "k" * 24


def test_every_secret_that_is_mounted_is_made(
    compose: dict[str, Any], make_secrets: Script, secrets_directory: Path
) -> None:
    """A file that is missing would keep the stack from starting."""
    make_secrets().check_returncode()

    made = {each.name for each in secrets_directory.iterdir()}

    assert set(compose["secrets"]) <= made
    # The administrator's password stands in two other files; nothing else is left over.
    assert made - set(compose["secrets"]) == {"broker-password-admin"}


def test_only_the_caller_can_enter_the_folder(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """The files are readable, for the containers' users; the way to them is closed."""
    make_secrets().check_returncode()

    assert stat.S_IMODE(secrets_directory.stat().st_mode) == 0o700


def test_no_two_passwords_are_alike_and_none_is_short(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """Each is random: there is no default that somebody could know."""
    make_secrets().check_returncode()

    passwords = [each.read_text().strip() for each in secrets_directory.glob("*-password-*")]

    of_broker, of_databases, of_grafana = 6, 8, 1
    assert len(passwords) == of_broker + of_databases + of_grafana
    assert len(set(passwords)) == len(passwords)
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords)


def test_running_it_again_keeps_every_secret(make_secrets: Script, secrets_directory: Path) -> None:
    """New passwords would lock the services out of the volumes that know the old ones."""
    make_secrets().check_returncode()
    before = {each.name: each.read_text() for each in secrets_directory.iterdir()}

    make_secrets().check_returncode()

    assert {each.name: each.read_text() for each in secrets_directory.iterdir()} == before


def test_a_real_key_goes_to_the_real_stripe_and_is_not_shown(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """Key and address change together, so no real key reaches the local Stripe."""
    make_secrets("emulator").check_returncode()

    done = make_secrets("stripe", stdin=KEY + "\n")

    assert done.returncode == 0
    assert (secrets_directory / "stripe-secret-key").read_text().strip() == KEY
    assert (secrets_directory / "stripe-api-base").read_text().strip() == ""
    assert KEY not in done.stdout + done.stderr
    assert "real Stripe" in done.stderr


def test_the_choice_of_stripe_outlives_a_further_run(
    make_secrets: Script, secrets_directory: Path
) -> None:
    """Only who asks for the local Stripe gets it back."""
    make_secrets("stripe", stdin=KEY + "\n").check_returncode()

    make_secrets().check_returncode()
    kept = (secrets_directory / "stripe-secret-key").read_text().strip()
    make_secrets("emulator").check_returncode()

    assert kept == KEY
    assert (secrets_directory / "stripe-secret-key").read_text().strip() != KEY
    assert "stripe-emulator" in (secrets_directory / "stripe-api-base").read_text()


def test_what_is_no_key_is_refused(make_secrets: Script, secrets_directory: Path) -> None:
    """A publishable key or an empty line changes nothing."""
    make_secrets("emulator").check_returncode()
    before = (secrets_directory / "stripe-secret-key").read_text()

    refused = [make_secrets("stripe", stdin=text) for text in ("pk_test_1\n", "\n", "")]

    assert [done.returncode != 0 for done in refused] == [True, True, True]
    assert (secrets_directory / "stripe-secret-key").read_text() == before
