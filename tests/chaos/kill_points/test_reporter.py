"""stripe-reporter, killed between two steps."""

import pytest

from chaos.kill_points.steps import CALL_IS, age_call, counted_unheard, identifier_of, told_unheard
from chaos.scene import REPORTER, Scene, past_run
from metering_chaos.proxies import Direction

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(180),
]

REPORTS_QUEUE = "stripe-reporter.usage-recorded"


async def test_reporter_before_a_report_is_claimed(scene: Scene) -> None:
    """The journal's row waits for a lock: no call was made, the next process makes it."""
    user = await scene.customer()
    run = past_run(user)
    async with scene.locked(REPORTER, "meter_calls"):
        await scene.publish(run)
        await scene.until_blocked(REPORTER, "INSERT INTO meter_calls")
        await scene.kill(REPORTER)
    await scene.restart(REPORTER)

    await scene.assert_billed_once(user, run)


async def test_reporter_between_the_claim_and_the_call(scene: Scene) -> None:
    """The journal says calling, the call never left: it is made once the row is too old."""
    user = await scene.customer()
    run = past_run(user)
    scene.proxy(REPORTER, "stripe").hold(Direction.TO_SERVER)
    await scene.publish(run)
    identifier = await identifier_of(scene, user)
    await scene.until(REPORTER, CALL_IS, identifier, "calling")
    await scene.kill(REPORTER)
    await age_call(scene, identifier)
    await scene.restart(REPORTER)

    await scene.assert_billed_once(user, run)


async def test_reporter_between_the_effect_of_a_call_and_its_answer(scene: Scene) -> None:
    """Stripe has counted it, nobody knows: the second call is told so, and nothing is added."""
    user = await scene.customer()
    run = past_run(user)
    await counted_unheard(scene, user, run)
    identifier = await identifier_of(scene, user)
    await scene.kill(REPORTER)
    await age_call(scene, identifier)
    await scene.restart(REPORTER)

    await scene.assert_billed_once(user, run)
    assert (await scene.environment.stripe.attempts())[identifier]["attempts"] == 2


async def test_reporter_between_an_answer_and_its_record(scene: Scene) -> None:
    """The journal's update waits for a lock: the call is made again, and nothing is added."""
    user = await scene.customer()
    run = past_run(user)
    await counted_unheard(scene, user, run)
    identifier = await identifier_of(scene, user)
    async with scene.locked(REPORTER, "meter_calls"):
        scene.proxy(REPORTER, "stripe").release()
        await scene.until_blocked(REPORTER, "UPDATE meter_calls")
        await scene.kill(REPORTER)
    await age_call(scene, identifier)
    await scene.restart(REPORTER)

    await scene.assert_billed_once(user, run)


async def test_reporter_between_the_record_and_the_outcome(scene: Scene) -> None:
    """The journal says accepted, nobody was told: the next process tells without calling."""
    user = await scene.customer()
    run = past_run(user)
    await counted_unheard(scene, user, run)
    identifier = await identifier_of(scene, user)
    scene.proxy(REPORTER, "broker").hold(Direction.TO_SERVER)
    scene.proxy(REPORTER, "stripe").release()
    await scene.until(REPORTER, CALL_IS, identifier, "accepted")
    await scene.kill(REPORTER)
    await scene.restart(REPORTER)

    await scene.assert_billed_once(user, run)
    assert (await scene.environment.stripe.attempts())[identifier]["attempts"] == 1


async def test_reporter_between_the_outcome_and_its_confirm(scene: Scene) -> None:
    """The outcome is published, nobody knows: it is told twice, and no second call is made."""
    user = await scene.customer()
    run = past_run(user)
    identifier = await told_unheard(scene, user, run)
    await scene.kill(REPORTER)
    await scene.restart(REPORTER)

    await scene.assert_billed_once(user, run)
    assert (await scene.environment.stripe.attempts())[identifier]["attempts"] == 1


async def test_reporter_between_the_confirm_of_the_outcome_and_the_ack(scene: Scene) -> None:
    """Everybody knows but the broker: the second delivery is told as counted, without a call."""
    user = await scene.customer()
    run = past_run(user)
    identifier = await told_unheard(scene, user, run)
    metric = f'stripe_reporter_messages_done_total{{queue="{REPORTS_QUEUE}"}}'
    before = await scene.metric(REPORTER, metric)
    proxy = scene.proxy(REPORTER, "broker")
    proxy.hold(Direction.TO_SERVER)
    proxy.release(Direction.TO_CLIENT)
    await scene.until_metric(REPORTER, metric, above=before)
    await scene.kill(REPORTER)
    await scene.restart(REPORTER)

    await scene.assert_billed_once(user, run)
    assert (await scene.environment.stripe.attempts())[identifier]["attempts"] == 1
