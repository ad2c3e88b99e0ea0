"""A database lost and restored from an older backup, by the runbook's section on it, to its end."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import aiohttp
import pytest

from e2e.losses import Story
from local_stack.servers import Database as PostgresServer
from nexus_messaging.topology import USAGE_OUTCOMES_QUEUE, USER_CREATED_QUEUE, dead_letter_queue
from rig.events import user_created
from rig.platform import Platform
from rig.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

OUTCOMES_DLQ = dead_letter_queue(USAGE_OUTCOMES_QUEUE)
INGEST, REPORTER, PROVISIONER = "usage-ingest", "stripe-reporter", "customer-provisioner"

PROFILE = """
SELECT stripe_customer_id, generation, announced_generation FROM user_profiles
 WHERE user_id = '{}'
"""
LOST_ANSWERS = """
UPDATE usage_reports
   SET state = 'forwarded', forwarded_at = coalesce(forwarded_at, created_at), answered_at = NULL
 WHERE state = 'reported'
RETURNING 1
"""
"""As if no answer had ever come: all the journal has forgotten is asked of Stripe again."""


@pytest.fixture
def story(platform: Platform, postgres: PostgresServer, tmp_path: Path) -> Story:
    """Return the platform, running."""
    platform.start()
    return Story(platform, postgres, tmp_path)


async def test_a_ledger_restored_from_an_older_backup_bills_everything_once(story: Story) -> None:
    """Events, customers, claims and answers of the last hour are lost, and Stripe counted on."""
    platform = story.platform
    known, deleted, unheard = [await story.user() for _ in range(3)]
    upcoming = uuid4()
    await story.run(known, 1, 2.1, 2.2)
    await story.settled()
    await story.run(upcoming, 1)
    await story.recorded()
    story.back_up("usage_ingest")
    before = len(story.runs)

    await story.run(known, 2.05, 3, 4)
    await story.run(upcoming, 1.5, 7)
    await platform.vhost.publish(user_created(upcoming, "upcoming@example.com"))
    fresh = await story.customer(upcoming)
    gone = await story.customer(deleted)
    await story.delete_at_stripe(gone)
    await story.run(deleted, 1)
    await story.settled(rejected=1)
    await story.no_answers_for(await story.customer(unheard))
    await story.run(unheard, 1, 2)
    await story.settled(unheard=2, rejected=1)
    story.lose(INGEST)
    await story.answers_come_late(fresh)

    first = await story.adopt()
    platform.settings["REPORTING_PAUSED"] = "1"
    platform.relaunch(INGEST)
    announced = await platform.command(
        *("customer_provisioner", "announce", "--execute"), "--since", story.began.isoformat()
    )
    await platform.vhost.publish(*story.runs[before:])
    await story.customer(upcoming)
    await story.recorded()
    second = await story.adopt()
    await remarks_on_the_pause(platform)
    letters = [each.headers["nexus-reason"] for each in await platform.vhost.peek(OUTCOMES_DLQ)]
    await platform.vhost.move(OUTCOMES_DLQ, USAGE_OUTCOMES_QUEUE)

    assert (first[0], announced[0], second[0]) == (1, 0, 0), (first, announced, second)
    assert "not known yet: 2" in first[1]
    assert letters == ["unknown_report"] * 2
    assert "events missing" in first[1]
    async with platform.stripe() as stripe:
        await stripe.remove_faults()
    del platform.settings["REPORTING_PAUSED"]
    platform.relaunch(INGEST)
    await story.operate("usage_ingest", "replay", "--older-than", "0.1", "--execute")
    await story.operate("customer_provisioner", "reprovision", str(deleted))
    await story.customer(deleted, but=gone)
    await story.run(known, 2.3, 50)
    await story.settled()
    await story.assert_counted_once()
    await eventually(lambda: platform.vhost.depth(USAGE_OUTCOMES_QUEUE), (0).__eq__)
    assert await platform.vhost.depth(OUTCOMES_DLQ) == 0


async def remarks_on_the_pause(platform: Platform) -> None:
    """Ask whether the service is ready, and what it remarks."""
    url = f"{platform.services[INGEST].url}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        told = await answer.json()
    assert told["status"] == "ok"
    assert "REPORTING_PAUSED" in told["remarks"]["reporting"]


async def test_a_journal_restored_from_an_older_backup_charges_nothing_again(story: Story) -> None:
    """Within Stripe's 24 hours it refuses what it has seen, whatever the journal has forgotten."""
    platform = story.platform
    known, unheard = await story.user(), await story.user()
    await story.run(known, 1)
    await story.settled()
    story.back_up("stripe_reporter")

    await story.no_answers_for(await story.customer(unheard))
    await story.run(known, 2, 3)
    await story.run(unheard, 1, 2)
    await story.settled(unheard=2)
    story.lose(REPORTER)
    async with platform.stripe() as stripe:
        await stripe.remove_faults()
        await stripe.advance_clock(timedelta(hours=22).total_seconds())
    platform.relaunch(REPORTER)
    await platform.rows("usage_ingest", LOST_ANSWERS)
    await story.operate("usage_ingest", "replay", "--older-than", "0.1", "--execute")

    await story.run(known, 4)
    await story.settled()
    await story.assert_counted_once()
    async with platform.stripe() as stripe:
        repeated = [each for each in (await stripe.attempts()).values() if each["attempts"] > 1]
    assert len(repeated) >= 4


async def test_customers_lost_with_the_provisioners_database_are_found_and_adopted(
    story: Story,
) -> None:
    """Nobody gets a second customer, and usage goes on under the first."""
    platform = story.platform
    known = await story.user()
    story.back_up("customer_provisioner")
    lost = await story.user()
    customer = await story.customer(lost)
    await story.run(lost, 1)
    await story.settled()
    story.lose(PROVISIONER)
    platform.relaunch(PROVISIONER)

    listed = f'{{"user_id": "{lost}", "email": "{lost}@example.com", "name": "Ada"}}\n'
    code, said = await platform.command(
        "customer_provisioner", "backfill", "--execute", given=listed
    )
    found = await eventually(
        lambda: platform.rows(
            "customer_provisioner",
            PROFILE.format(lost),
        ),
        lambda rows: bool(rows) and rows[0][2] == 1,
        within=60,
    )

    assert code == 0, said
    assert found == [(customer, 1, 1)]
    await story.run(lost, 2)
    await story.run(known, 1)
    await story.settled()
    await story.assert_counted_once()
    assert await platform.vhost.depth(dead_letter_queue(USER_CREATED_QUEUE)) == 0
