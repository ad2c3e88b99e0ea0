"""usage-ingest, killed between two steps."""

from datetime import UTC, datetime, timedelta

import pytest

from chaos.kill_points.steps import (
    ACCOUNT,
    CLAIMING,
    LEASED,
    RECORDED,
    REPORT_IS,
    counted_unheard,
    end_leases,
    forwarded_unheard,
    until_dead,
    waiting_run,
)
from chaos.scene import INGEST, REPORTER, Scene, created, past_run
from metering_chaos.proxies import Direction
from rig.events import tool_run
from rig.waiting import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(180),
]

RUNS_QUEUE = "usage-ingest.tool-executed"


async def test_ingest_before_its_runs_are_committed(scene: Scene) -> None:
    """The insert waits for a lock: the broker delivers the run again."""
    user = await scene.customer()
    run = past_run(user)
    async with scene.locked(INGEST, "usage_events"):
        await scene.publish(run)
        await scene.until_blocked(INGEST, "INSERT INTO usage_events")
        await scene.kill(INGEST)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)


async def test_ingest_between_the_commit_and_the_ack_of_its_runs(scene: Scene) -> None:
    """The row is there, the ack never left: the second delivery is a known duplicate."""
    user = await scene.customer()
    run = past_run(user)
    scene.proxy(INGEST, "broker").hold(Direction.TO_SERVER)
    await scene.publish(run)
    await scene.until(INGEST, RECORDED, run.id)
    await scene.kill(INGEST)
    await end_leases(scene, user)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)


async def test_ingest_between_a_dead_letter_and_its_confirm(scene: Scene) -> None:
    """The copy is in the dead-letter queue, nobody knows: it is dead-lettered once more."""
    user = await scene.customer()
    run, future = past_run(user), tool_run(user, time=datetime.now(UTC) + timedelta(days=1))
    proxy = scene.proxy(INGEST, "broker")
    async with scene.locked(INGEST, "usage_events"):
        await scene.publish(run)
        await scene.until_blocked(INGEST, "INSERT INTO usage_events")
        await scene.publish(future)
        await scene.until_taken(RUNS_QUEUE)
        proxy.hold(Direction.TO_CLIENT)
    await until_dead(scene, future.body())
    await scene.kill(INGEST)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)
    await eventually(scene.letters, lambda bodies: bodies.count(future.body()) == 2)


async def test_ingest_between_the_confirm_of_a_dead_letter_and_the_ack(scene: Scene) -> None:
    """The copy is safe, the original comes again: a second copy, and no loss."""
    user = await scene.customer()
    run, future = past_run(user), tool_run(user, time=datetime.now(UTC) + timedelta(days=1))
    proxy = scene.proxy(INGEST, "broker")
    async with scene.locked(INGEST, "usage_events"):
        await scene.publish(run)
        await scene.until_blocked(INGEST, "INSERT INTO usage_events")
        await scene.publish(future)
        await scene.until_taken(RUNS_QUEUE)
        proxy.hold(Direction.TO_CLIENT)
    await until_dead(scene, future.body())
    metric = f'queue="{RUNS_QUEUE}",reason="timestamp_in_future"'
    metric = f"usage_ingest_messages_dead_lettered_total{{{metric}}}"
    before = await scene.metric(INGEST, metric)
    proxy.hold(Direction.TO_SERVER)
    proxy.release(Direction.TO_CLIENT)
    await scene.until_metric(INGEST, metric, above=before)
    await scene.kill(INGEST)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)
    await eventually(scene.letters, lambda bodies: bodies.count(future.body()) == 2)


async def test_ingest_before_a_claim_is_committed(scene: Scene) -> None:
    """The report's insert waits for a lock: the run stays due and is claimed later."""
    user = await scene.customer()
    run = past_run(user)
    async with scene.locked(INGEST, "usage_reports"):
        await scene.publish(run)
        await scene.until_blocked(INGEST, CLAIMING)
        await scene.kill(INGEST)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)


async def test_ingest_between_a_lease_and_the_publish(scene: Scene) -> None:
    """The report is leased and never left: it is forwarded once the lease has run out."""
    user = await scene.customer()
    run = past_run(user)
    async with scene.locked(INGEST, "usage_reports"):
        await scene.publish(run)
        await scene.until_blocked(INGEST, CLAIMING)
        scene.proxy(INGEST, "broker").hold(Direction.TO_SERVER)
    await scene.until(INGEST, LEASED, user)
    await scene.kill(INGEST)
    await end_leases(scene, user)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)


async def test_ingest_between_a_forwarded_report_and_its_confirm(scene: Scene) -> None:
    """The report is with the reporter, nobody knows: it is forwarded again, and counted once."""
    user = await scene.customer()
    run = past_run(user)
    await forwarded_unheard(scene, user, run)
    await scene.kill(INGEST)
    await end_leases(scene, user)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)


async def test_ingest_between_the_confirm_of_a_report_and_the_mark(scene: Scene) -> None:
    """The mark waits for a lock: the report is forwarded again, and counted once."""
    user = await scene.customer()
    run = past_run(user)
    await forwarded_unheard(scene, user, run)
    async with scene.locked(INGEST, "usage_reports"):
        scene.proxy(INGEST, "broker").release(Direction.TO_CLIENT)
        await scene.until_blocked(INGEST, "UPDATE usage_reports SET state = 'forwarded'")
        await scene.kill(INGEST)
    await end_leases(scene, user)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)


async def test_ingest_before_an_outcome_is_committed(scene: Scene) -> None:
    """The outcome waits for a lock: the broker delivers it again."""
    user = await scene.customer()
    run = past_run(user)
    await counted_unheard(scene, user, run)
    await scene.until(INGEST, REPORT_IS, user, "forwarded")
    async with scene.locked(INGEST, "usage_reports"):
        scene.proxy(REPORTER, "stripe").release()
        await scene.until_blocked(INGEST, "SELECT report_id FROM usage_reports")
        await scene.kill(INGEST)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)


async def test_ingest_between_the_commit_and_the_ack_of_an_outcome(scene: Scene) -> None:
    """The report is reported, the ack never left: the second delivery changes nothing."""
    user = await scene.customer()
    run = past_run(user)
    await counted_unheard(scene, user, run)
    await scene.until(INGEST, REPORT_IS, user, "forwarded")
    scene.proxy(INGEST, "broker").hold(Direction.TO_SERVER)
    scene.proxy(REPORTER, "stripe").release()
    await scene.until(INGEST, REPORT_IS, user, "reported")
    await scene.kill(INGEST)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)


async def test_ingest_before_a_customer_is_committed(scene: Scene) -> None:
    """The account waits for a lock: the broker delivers the news again."""
    user, run = await waiting_run(scene)
    async with scene.locked(INGEST, "billing_accounts"):
        await scene.publish(created(user))
        await scene.until_blocked(INGEST, "INSERT INTO billing_accounts")
        await scene.kill(INGEST)
    await scene.restart(INGEST)
    await scene.until(INGEST, ACCOUNT, user)

    await scene.assert_billed_once(user, run)


async def test_ingest_between_the_commit_and_the_ack_of_a_customer(scene: Scene) -> None:
    """The account is there, the ack never left: the second delivery changes nothing."""
    user, run = await waiting_run(scene)
    scene.proxy(INGEST, "broker").hold(Direction.TO_SERVER)
    await scene.publish(created(user))
    await scene.until(INGEST, ACCOUNT, user)
    await scene.kill(INGEST)
    await end_leases(scene, user)
    await scene.restart(INGEST)

    await scene.assert_billed_once(user, run)
