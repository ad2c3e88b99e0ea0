"""The leak check of every test that runs services: it finds leaks, and shows no secret."""

from pathlib import Path
from uuid import uuid4

from nexus_messaging.topology import DEAD, TOOL_EXECUTED_QUEUE
from support.databases import Clone
from support.events import user_created
from support.leak_check import leaks, personal_data, secrets_in, tap
from support.platform import Platform
from support.vhost import Vhost


async def test_leak_in_a_log_or_a_header_is_found(
    vhost: Vhost, clone: Clone, tmp_path: Path
) -> None:
    """A password in a log, a name in a dead letter's header, an address in a retry copy's."""
    leaky = Platform(vhost, {"usage_ingest": await clone("usage_ingest")}, tmp_path)
    await tap(vhost.admin_url)
    vhost.personal.update(personal_data(user_created(uuid4())))
    leaky.start("usage-ingest")
    with leaky.services["usage-ingest"].log.open("a", encoding="utf-8") as log:
        log.write(f"the password is {vhost.password}\n")
    for exchange, header in ((DEAD, "name: Ada"), ("retry.1", "to eve@example.org")):
        await vhost.publish_raw(
            b"{}", TOOL_EXECUTED_QUEUE, exchange=exchange, headers={"nexus-error": header}
        )

    found = await leaky.leaks()
    leaky.stop()

    assert [each.partition(":")[0] for each in found] == [
        "log of usage-ingest",
        "headers of copies",
        "headers of copies",
    ]
    assert "headers of copies: an e-mail address" in found
    assert not any(secret in "".join(found) for secret in (vhost.password, "Ada", "eve"))


def test_short_name_is_found_only_as_a_whole_word() -> None:
    """Random tokens may contain any three letters."""
    assert leaks({"log": "cus_xAda9, Adam"}, {"Ada"}) == []
    assert leaks({"log": "hello Ada."}, {"Ada"}) == ["log: secret 0"]


def test_secrets_of_settings_are_keys_and_passwords_in_urls() -> None:
    """Hosts, ports and names of roles are not secret."""
    settings = {
        "AMQP_URL": "amqp://usage-ingest:pass1@h/v",
        "DATABASE_URL": "postgresql://role:pass2@h/d",
        "STRIPE_SECRET_KEY": "sk_test_1",
        "HTTP_PORT": "80",
    }

    assert secrets_in(settings) == {"pass1", "pass2", "sk_test_1"}
