"""A database is lost and restored from an older backup, by the runbook's section on it."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from e2e.restore_scenario import RestoreScenario
from e2e.restored_plans import LATE_MODEL, PLANS, organisation
from local_stack.servers import Database as PostgresServer
from nexus_messaging.topology import USAGE_OUTCOMES_QUEUE, USER_CREATED_QUEUE, dead_letter_queue
from support.events import user_created
from support.platform import Platform
from support.waiting import eventually

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
"""As if no outcome had arrived: all that the journal lost is sent to Stripe again."""

LOST_ASSIGNMENTS = """
SELECT format('customer-provisioner assign %s %s --from %s', user_id, account_id,
              to_json(since) #>> '{{}}')
  FROM account_assignments
 WHERE revision > extract(epoch FROM timestamptz '{}') * 1000000 ORDER BY revision
"""
"""What the runbook has an operator run again."""

SWEEP_NOW = "UPDATE subscription_sweep SET due_at = now() RETURNING 1"
SUBSCRIBED = """
SELECT account_id, plan_type, status, seats::int, stripe_customer_id FROM user_subscriptions
"""
REVISION = "SELECT max(revision) FROM account_subscriptions"


@pytest.fixture
def scenario(platform: Platform, postgres: PostgresServer, tmp_path: Path) -> RestoreScenario:
    """Return the platform, running."""
    platform.start()
    return RestoreScenario(platform, postgres, tmp_path)


async def test_restored_ledger_bills_everything_once(scenario: RestoreScenario) -> None:
    """Events, customers, claims and outcomes since the backup are lost; Stripe has counted them."""
    platform = scenario.platform
    known, deleted, unanswered = [await scenario.user() for _ in range(3)]
    upcoming = uuid4()
    await scenario.run(known, 1, 2.1, 2.2)
    await scenario.until_settled()
    await scenario.run(upcoming, 1)
    await scenario.until_recorded()
    scenario.back_up("usage_ingest")
    before = len(scenario.runs)

    await scenario.run(known, 2.05, 3, 4)
    await scenario.run(upcoming, 1.5, 7)
    await platform.vhost.publish(user_created(upcoming, "upcoming@example.com"))
    fresh = await scenario.customer(upcoming)
    gone = await scenario.customer(deleted)
    await platform.delete_customer(gone)
    await scenario.run(deleted, 1)
    await scenario.until_settled(rejected=1)
    await scenario.lose_answers_for(await scenario.customer(unanswered))
    await scenario.run(unanswered, 1, 2)
    await scenario.until_settled(unanswered=2, rejected=1)
    scenario.lose(INGEST)
    await scenario.publish_late_outcomes(fresh)

    first = await scenario.adopt("--reports-only")
    platform.settings["REPORTING_PAUSED"] = "1"
    platform.relaunch(INGEST)
    announced = await platform.command(
        *("customer_provisioner", "announce", "--execute"), "--since", scenario.began.isoformat()
    )
    await platform.vhost.publish(*scenario.runs[before:])
    await scenario.customer(upcoming)
    await scenario.until_recorded()
    second = await scenario.adopt()
    await assert_ready_and_paused(platform)
    letters = [each.headers["nexus-reason"] for each in await platform.vhost.peek(OUTCOMES_DLQ)]
    await platform.vhost.move(OUTCOMES_DLQ, USAGE_OUTCOMES_QUEUE)

    assert (first[0], announced[0], second[0]) == (1, 0, 0), (first, announced, second)
    assert "not known yet: 2" in first[1]
    assert letters == ["unknown_report"] * 2
    assert "events missing" not in first[1]
    async with platform.stripe() as stripe:
        await stripe.remove_faults()
    del platform.settings["REPORTING_PAUSED"]
    platform.relaunch(INGEST)
    await platform.run_command("usage_ingest", "replay", "--older-than", "0.1", "--execute")
    await platform.run_command("customer_provisioner", "reprovision", str(deleted))
    await scenario.customer(deleted, but=gone)
    await scenario.run(known, 2.3, 50)
    await scenario.until_settled()
    await scenario.assert_counted_once()
    await eventually(lambda: platform.vhost.depth(USAGE_OUTCOMES_QUEUE), (0).__eq__)
    assert await platform.vhost.depth(OUTCOMES_DLQ) == 0


async def test_restored_ledger_bills_the_runs_of_a_team_once(scenario: RestoreScenario) -> None:
    """Its users were assigned since the backup, and share the team's customer."""
    platform = scenario.platform
    team, members = await scenario.user(), [uuid4() for _ in range(2)]
    scenario.back_up("usage_ingest")
    await scenario.assign(team, *members)
    for member in members:
        await scenario.run(member, 1, 2, 12)
    await scenario.until_settled()
    scenario.lose(INGEST)

    await scenario.adopt("--reports-only")
    platform.settings["REPORTING_PAUSED"] = "1"
    platform.relaunch(INGEST)
    await scenario.assign(team, *members)
    await platform.vhost.publish(*scenario.runs)
    await scenario.until_recorded()
    adopted = await scenario.adopt()
    del platform.settings["REPORTING_PAUSED"]
    platform.relaunch(INGEST)
    await scenario.run(members[0], 2.5)
    await scenario.until_settled()

    assert adopted[0] == 0, adopted
    await scenario.assert_counted_once()


async def assert_ready_and_paused(platform: Platform) -> None:
    """Check that ingest is ready, and remarks on the pause."""
    readiness = await platform.readiness(INGEST)
    assert readiness["status"] == "ok"
    assert "REPORTING_PAUSED" in readiness["remarks"]["reporting"]


async def test_restored_journal_charges_nothing_again(scenario: RestoreScenario) -> None:
    """Within 24 hours Stripe refuses known identifiers, whatever the journal has lost."""
    platform = scenario.platform
    known, unanswered = await scenario.user(), await scenario.user()
    await scenario.run(known, 1)
    await scenario.until_settled()
    scenario.back_up("stripe_reporter")

    await scenario.lose_answers_for(await scenario.customer(unanswered))
    await scenario.run(known, 2, 3)
    await scenario.run(unanswered, 1, 2)
    await scenario.until_settled(unanswered=2)
    scenario.lose(REPORTER)
    async with platform.stripe() as stripe:
        await stripe.remove_faults()
        await stripe.advance_clock(timedelta(hours=22).total_seconds())
    platform.relaunch(REPORTER)
    await platform.rows("usage_ingest", LOST_ANSWERS)
    await platform.run_command("usage_ingest", "replay", "--older-than", "0.1", "--execute")

    await scenario.run(known, 4)
    await scenario.until_settled()
    await scenario.assert_counted_once()
    async with platform.stripe() as stripe:
        repeated = [each for each in (await stripe.attempts()).values() if each["attempts"] > 1]
    assert len(repeated) >= 4


async def test_customers_lost_in_a_restore_are_found_again(scenario: RestoreScenario) -> None:
    """No user gets a second customer, and usage goes to the first one."""
    platform = scenario.platform
    known = await scenario.user()
    scenario.back_up("customer_provisioner")
    lost = await scenario.user()
    customer = await scenario.customer(lost)
    await scenario.run(lost, 1)
    await scenario.until_settled()
    scenario.lose(PROVISIONER)
    platform.relaunch(PROVISIONER)

    listed = f'{{"user_id": "{lost}", "email": "{lost}@example.com", "name": "Ada"}}\n'
    code, output = await platform.command(
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

    assert code == 0, output
    assert found == [(customer, 1, 1)]
    await scenario.run(lost, 2)
    await scenario.run(known, 1)
    await scenario.until_settled()
    await scenario.assert_counted_once()
    assert await platform.vhost.depth(dead_letter_queue(USER_CREATED_QUEUE)) == 0


async def test_restored_ledger_has_plans_prices_and_first_uses_back(
    platform: Platform, postgres: PostgresServer, tmp_path: Path
) -> None:
    """An organisation joined, passed a share of its limit and got a late price since the backup."""
    scenario, plans = RestoreScenario(platform, postgres, tmp_path), tmp_path / "plans.yaml"
    async with organisation(scenario, plans, lost="usage_ingest") as team:
        await team.subscribe()
        for server in ("weather", "maps", "browser"):
            await team.run(server)
        await team.run("weather", model="known")
        await team.run("weather", model="late")
        await team.until_charged(tool_call_executed=4, premium=1, micros=1200, tools=3)
        plans.write_text(PLANS + LATE_MODEL.lstrip("\n"))
        platform.relaunch(INGEST)
        await team.until_charged(tool_call_executed=4, premium=1, micros=4800, tools=3)
        notices = await team.notices_so_far()
        scenario.lose(INGEST)

        await scenario.adopt("--reports-only")
        platform.settings["REPORTING_PAUSED"] = "1"
        platform.relaunch(INGEST)
        announce = ("announce", "--execute", "--since", scenario.began.isoformat())
        await platform.run_command("customer_provisioner", *announce)
        await team.until_known()
        await platform.vhost.publish(*scenario.runs)
        await scenario.until_recorded()
        adopted = await scenario.adopt()
        del platform.settings["REPORTING_PAUSED"]
        platform.relaunch(INGEST)
        await team.run("weather")
        await team.run("calendar")

        await team.until_charged(tool_call_executed=6, premium=1, micros=4800, tools=4)
        assert adopted[0] == 0, adopted
        assert await team.notices_so_far() == notices
        await platform.run_command("usage_ingest", "totals", "--verify")


async def test_organisation_lost_in_a_restore_is_made_again(
    platform: Platform, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Its assignments come from usage-ingest's copy, its subscription from Stripe."""
    scenario, plans = RestoreScenario(platform, postgres, tmp_path), tmp_path / "plans.yaml"
    async with organisation(scenario, plans, lost="customer_provisioner") as team:
        await team.subscribe()
        customer = await scenario.customer(team.account)
        before = await platform.number("usage_ingest", REVISION)
        scenario.lose(PROVISIONER)
        platform.relaunch(PROVISIONER)

        await team.create()
        since = scenario.began.isoformat()
        lost = await platform.rows("usage_ingest", LOST_ASSIGNMENTS.format(since))
        for [line] in lost:
            await platform.run_command(*str(line).replace("-", "_", 1).split())
        await platform.rows("customer_provisioner", SWEEP_NOW)
        subscribed = await eventually(
            lambda: platform.rows("customer_provisioner", SUBSCRIBED), bool, within=150
        )

        await eventually(
            lambda: platform.number("usage_ingest", REVISION), lambda n: n > before, within=60
        )
        await team.until_known()
        assert len(lost) == 1
        assert subscribed == [(team.account, "team", "active", 3, customer)]
        await team.run("weather")
        await team.until_charged(tool_call_executed=1, tools=1)
