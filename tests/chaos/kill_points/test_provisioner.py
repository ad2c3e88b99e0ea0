"""customer-provisioner, killed between two steps."""

import pytest

from chaos.kill_points.steps import (
    ANNOUNCED,
    CALLED,
    STORED,
    announced_unheard,
    assert_one_customer,
    end_attempt,
    made_unheard,
    waiting_run,
)
from chaos.scene import PROVISIONER, Scene, created
from metering_chaos.proxies import Direction

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(180),
]


async def test_provisioner_before_a_user_is_committed(scene: Scene) -> None:
    """The profile waits for a lock: the broker delivers the news again."""
    user, run = await waiting_run(scene)
    async with scene.locked(PROVISIONER, "user_profiles"):
        await scene.publish(created(user))
        await scene.until_blocked(PROVISIONER, "INSERT INTO user_profiles")
        await scene.kill(PROVISIONER)
    await scene.restart(PROVISIONER)

    await assert_one_customer(scene, user)
    await scene.assert_billed_once(user, run)


async def test_provisioner_between_the_claim_and_the_call(scene: Scene) -> None:
    """The request is kept, the call never left: it is made once the lease has run out."""
    user, run = await waiting_run(scene)
    scene.proxy(PROVISIONER, "stripe").hold(Direction.TO_SERVER)
    await scene.publish(created(user))
    await scene.until(PROVISIONER, CALLED, user)
    await scene.kill(PROVISIONER)
    await end_attempt(scene, user)
    await scene.restart(PROVISIONER)

    await assert_one_customer(scene, user)
    await scene.assert_billed_once(user, run)


async def test_provisioner_between_the_effect_of_a_call_and_its_answer(scene: Scene) -> None:
    """Stripe has the customer, nobody knows: the second call is given the same one."""
    user, run = await waiting_run(scene)
    await made_unheard(scene, user)
    await scene.kill(PROVISIONER)
    await end_attempt(scene, user)
    await scene.restart(PROVISIONER)

    await assert_one_customer(scene, user)
    await scene.assert_billed_once(user, run)


async def test_provisioner_between_an_answer_and_its_record(scene: Scene) -> None:
    """The customer's id waits for a lock: the second call is given the same one."""
    user, run = await waiting_run(scene)
    await made_unheard(scene, user)
    async with scene.locked(PROVISIONER, "user_profiles"):
        scene.proxy(PROVISIONER, "stripe").release()
        await scene.until_blocked(PROVISIONER, "SELECT user_id, email")
        await scene.kill(PROVISIONER)
    await end_attempt(scene, user)
    await scene.restart(PROVISIONER)

    await assert_one_customer(scene, user)
    await scene.assert_billed_once(user, run)


async def test_provisioner_between_the_record_and_the_announcement(scene: Scene) -> None:
    """The customer is stored, nobody was told: the next process tells."""
    user, run = await waiting_run(scene)
    await made_unheard(scene, user)
    scene.proxy(PROVISIONER, "broker").hold(Direction.TO_SERVER)
    scene.proxy(PROVISIONER, "stripe").release()
    await scene.until(PROVISIONER, STORED, user)
    await scene.kill(PROVISIONER)
    await scene.restart(PROVISIONER)

    await assert_one_customer(scene, user)
    await scene.assert_billed_once(user, run)


async def test_provisioner_between_the_announcement_and_its_confirm(scene: Scene) -> None:
    """The account is open, nobody knows: it is announced again, and changes nothing."""
    user, run = await waiting_run(scene)
    await announced_unheard(scene, user)
    await scene.kill(PROVISIONER)
    await scene.restart(PROVISIONER)
    await scene.until(PROVISIONER, ANNOUNCED, user)

    await assert_one_customer(scene, user)
    await scene.assert_billed_once(user, run)


async def test_provisioner_between_the_confirm_of_an_announcement_and_the_mark(
    scene: Scene,
) -> None:
    """The mark waits for a lock: it is announced again, and changes nothing."""
    user, run = await waiting_run(scene)
    await announced_unheard(scene, user)
    async with scene.locked(PROVISIONER, "user_profiles"):
        scene.proxy(PROVISIONER, "broker").release(Direction.TO_CLIENT)
        await scene.until_blocked(PROVISIONER, "UPDATE user_profiles")
        await scene.kill(PROVISIONER)
    await scene.restart(PROVISIONER)
    await scene.until(PROVISIONER, ANNOUNCED, user)

    await assert_one_customer(scene, user)
    await scene.assert_billed_once(user, run)
