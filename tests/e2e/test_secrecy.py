"""The net under every test that runs services: it finds what it is for, and names no secret."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

from nexus_messaging.topology import DEAD, TOOL_EXECUTED_QUEUE
from rig.events import user_created
from rig.platform import Platform
from rig.secrecy import leaks, personal, secrets_in, tap
from rig.vhost import Vhost

Clone = Callable[[str], Awaitable[str]]


async def test_a_leak_in_a_log_or_a_header_fails_the_test_that_made_it(
    vhost: Vhost, clone: Clone, tmp_path: Path
) -> None:
    """A password in a log, a name in a dead letter's header, an address in a retry copy's."""
    leaky = Platform(vhost, {"usage_ingest": await clone("usage_ingest")}, tmp_path)
    await tap(vhost.admin_url)
    vhost.personal.update(personal(user_created(uuid4())))
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


def test_a_short_name_is_found_as_a_word_only() -> None:
    """Random tokens hold any three letters sooner or later."""
    assert leaks({"log": "cus_xAda9, Adam"}, {"Ada"}) == []
    assert leaks({"log": "hello Ada."}, {"Ada"}) == ["log: secret 0"]


def test_keys_and_the_passwords_in_urls_are_what_settings_hide() -> None:
    """Not hosts, ports and names of roles."""
    settings = {
        "AMQP_URL": "amqp://usage-ingest:pass1@h/v",
        "DATABASE_URL": "postgresql://role:pass2@h/d",
        "STRIPE_SECRET_KEY": "sk_test_1",
        "HTTP_PORT": "80",
    }

    assert secrets_in(settings) == {"pass1", "pass2", "sk_test_1"}
