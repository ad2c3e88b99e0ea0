"""What `usage-ingest status` shows in outages, with the real services, broker and databases."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from nexus_messaging.topology import (
    TOOL_EXECUTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    dead_letter_queue,
)
from support.events import tool_run, user_created
from support.platform import Platform
from support.waiting import eventually

NO_CONSUMER = "no consumer"


async def status(platform: Platform, *arguments: str) -> tuple[int, str]:
    """Return exit code and output of `usage-ingest status`."""
    return await platform.command("usage_ingest", "status", *arguments)


async def facts_of(platform: Platform) -> tuple[int, dict[str, Any]]:
    """Return exit code and facts of `usage-ingest status --json`."""
    code, output = await status(platform, "--json")
    return code, json.loads(output)


def bad(facts: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong, by its name."""
    return {each["name"]: each["text"] for each in facts["findings"] if each["tone"] == "bad"}


async def test_status_of_working_services_is_good(platform: Platform) -> None:
    """Exit code 0, with the consumers of every queue, and a note on what was not read."""
    platform.start()

    code, facts = await facts_of(platform)
    text = await status(platform)

    assert (code, bad(facts), facts["degraded"]) == (0, {}, False)
    assert facts["queues"][TOOL_EXECUTED_QUEUE] == {"ready": 0, "consumers": 1, "messages": None}
    assert text[0] == 0
    assert f"recording: 0 waiting in {TOOL_EXECUTED_QUEUE}, 1 consuming\n" in text[1]
    assert "MANAGEMENT_URL is not set" in text[1]


async def test_status_names_the_stages_of_a_stopped_service(platform: Platform) -> None:
    """With the number of messages, the time since the last recording, and the cause."""
    platform.start("usage-ingest")
    user = uuid4()
    await platform.vhost.publish(tool_run(user, time=datetime.now(UTC) - timedelta(seconds=30)))

    async def recorded() -> list[tuple[object, ...]]:
        return await platform.rows("usage_ingest", "SELECT count(*) FROM usage_events")

    await eventually(recorded, lambda rows: rows == [(1,)])
    platform.services["usage-ingest"].stop()
    await platform.vhost.publish(*(tool_run(user) for _ in range(812)))

    code, text = await status(platform)
    platform.settings["MANAGEMENT_URL"] = management(platform)
    _, known = await facts_of(platform)

    assert code == 1
    line = next(line for line in text.splitlines() if line.startswith("recording: stands still"))
    assert "nothing was recorded for " in line
    assert f"812 waiting in {TOOL_EXECUTED_QUEUE}, no consumer" in line
    assert "usage-ingest does not run, or " in line
    assert "usage-ingest does not run, as it has no connection" in bad(known)["recording"]
    assert set(bad(known)) >= {"recording", "applying answers", "learning of customers"}


async def test_status_with_an_open_circuit_breaker_is_bad(
    platform: Platform,
) -> None:
    """Stripe refuses the key: at once, before any usage is late."""
    platform.start()
    user = uuid4()
    await platform.vhost.publish(user_created(user))

    async def served() -> list[tuple[object, ...]]:
        return await platform.rows("usage_ingest", "SELECT count(*) FROM billing_accounts")

    await eventually(served, lambda rows: rows == [(1,)])
    async with platform.stripe() as stripe:
        await stripe.set_key(platform.stripe_key, "revoked")
    await platform.vhost.publish(tool_run(user, time=datetime.now(UTC) - timedelta(seconds=30)))
    platform.settings["MANAGEMENT_URL"] = management(platform)

    async def reporting() -> str:
        return bad((await facts_of(platform))[1]).get("reporting", "")

    stopped = await eventually(reporting, lambda text: "circuit breaker" in text)
    code, _ = await status(platform)

    assert code == 1
    assert NO_CONSUMER in stopped
    assert "stripe-reporter runs, so its circuit breaker is open" in stopped


async def test_status_names_dead_letters_and_missing_queues(platform: Platform) -> None:
    """Both keep usage from being billed until a person acts."""
    platform.start()
    await platform.vhost.publish_raw(b"{}", "tool.executed.v1")
    dead = dead_letter_queue(TOOL_EXECUTED_QUEUE)

    async def letters() -> int:
        return await platform.vhost.depth(dead)

    await eventually(letters, lambda number: number == 1)
    async with platform.vhost.channel() as channel:
        await channel.queue_delete(USAGE_OUTCOMES_QUEUE)

    code, facts = await facts_of(platform)

    assert code == 1
    assert f"1 in {dead}" in bad(facts)["dead letters"]
    assert "is missing: run nexus-topology apply" in bad(facts)["applying answers"]
    assert USAGE_RECORDED_QUEUE in facts["queues"]


async def test_status_shows_one_side_while_the_other_is_away(platform: Platform) -> None:
    """Queues without the database, and the ledger without the broker; both exit with 1."""
    platform.start("usage-ingest")
    platform.settings["DATABASE_URL"] = "postgresql://x:s3cret@127.0.0.1:1/d"
    no_database = await facts_of(platform)
    del platform.settings["DATABASE_URL"]
    platform.settings["AMQP_URL"] = "amqp://x:s3cret@127.0.0.1:1/v"
    no_broker = await facts_of(platform)

    assert no_database[0] == no_broker[0] == 1
    assert "not reachable" in bad(no_database[1])["ledger"]
    assert no_database[1]["late_seconds"] is None
    assert no_database[1]["queues"][TOOL_EXECUTED_QUEUE]["consumers"] == 1
    assert bad(no_broker[1])["broker"] == "not reachable: ConnectionRefusedError"
    assert no_broker[1]["queues"] is None
    assert no_broker[1]["late_seconds"] == 0.0


async def test_status_notes_what_it_could_not_read(platform: Platform) -> None:
    """If the management API refuses the login, there is still what AMQP shows."""
    platform.start()
    platform.settings["MANAGEMENT_URL"] = management(platform).replace(
        platform.vhost.broker.admin.password, "wrong"
    )
    refused = await facts_of(platform)
    platform.settings["AMQP_URL"] = ""
    without = await status(platform)

    remarks = {each["name"]: each["text"] for each in refused[1]["findings"]}
    assert refused[0] == 0
    assert "refused the user of MANAGEMENT_URL" in remarks["management API"]
    assert refused[1]["queues"][TOOL_EXECUTED_QUEUE]["consumers"] == 1
    assert without[0] == 0
    assert "broker: queues and dead letters were not read: set AMQP_URL" in without[1]


def management(platform: Platform) -> str:
    """Return the management API's address with an administrator's login."""
    return platform.vhost.management_url
