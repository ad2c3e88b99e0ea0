"""What kill points have in common: how far a step has come, seen and held from outside."""

from uuid import UUID, uuid4

from chaos.scene import INGEST, PROVISIONER, REPORTER, Scene, created, past_run
from metering_chaos.proxies import Direction
from nexus_contracts import Event, ToolExecuted
from rig.waiting import eventually

CLAIMING = "WITH taken"

RECORDED = "SELECT 1 FROM usage_events WHERE event_id = $1"
ACCOUNT = "SELECT 1 FROM billing_accounts WHERE user_id = $1"
REPORT = "SELECT identifier FROM usage_reports WHERE user_id = $1"
LEASED = "SELECT 1 FROM usage_reports WHERE user_id = $1 AND leased_until IS NOT NULL"
REPORT_IS = "SELECT 1 FROM usage_reports WHERE user_id = $1 AND state = $2"
CALL_IS = "SELECT 1 FROM meter_calls WHERE identifier = $1 AND state = $2"
CALLED = "SELECT 1 FROM user_profiles WHERE user_id = $1 AND call_started_at IS NOT NULL"
STORED = "SELECT 1 FROM user_profiles WHERE user_id = $1 AND state = 'provisioned'"
ANNOUNCED = "SELECT 1 FROM user_profiles WHERE user_id = $1 AND announced_generation = 1"

END_LEASES = "UPDATE usage_reports SET leased_until = now() WHERE user_id = $1"
END_ATTEMPT = "UPDATE user_profiles SET claimed_until = now(), due_at = now() WHERE user_id = $1"
AGE_CALL = """
UPDATE meter_calls SET started_at = started_at - interval '1 minute'
 WHERE identifier = $1 AND state = 'calling'
"""


async def identifier_of(scene: Scene, user: UUID) -> str:
    """Wait for the report of a user and return its identifier."""
    await scene.until(INGEST, REPORT, user)
    return str((await scene.rows(INGEST, REPORT, user))[0][0])


async def until_dead(scene: Scene, body: bytes) -> None:
    """Wait until a message lies in a dead-letter queue."""
    await eventually(scene.letters, lambda bodies: body in bodies, within=30, every=0.2)


async def end_leases(scene: Scene, user: UUID) -> None:
    """Let the leases of a user's reports run out."""
    await scene.rows(INGEST, END_LEASES, user)


async def age_call(scene: Scene, identifier: str) -> None:
    """Let a call that is under way be older than any call lasts."""
    await scene.rows(REPORTER, AGE_CALL, identifier)


async def end_attempt(scene: Scene, user: UUID) -> None:
    """Let the lease of an attempt for a user run out."""
    await scene.rows(PROVISIONER, END_ATTEMPT, user)


async def forwarded_unheard(scene: Scene, user: UUID, run: Event[ToolExecuted]) -> None:
    """Let a report reach Stripe while ingest waits for the broker's confirm of it."""
    async with scene.locked(INGEST, "usage_reports"):
        await scene.publish(run)
        await scene.until_blocked(INGEST, CLAIMING)
        scene.proxy(INGEST, "broker").hold(Direction.TO_CLIENT)
    await scene.until_counted(user)


async def counted_unheard(scene: Scene, user: UUID, run: Event[ToolExecuted]) -> None:
    """Let Stripe count a run while the reporter waits for its answer."""
    scene.proxy(REPORTER, "stripe").hold(Direction.TO_CLIENT)
    await scene.publish(run)
    await scene.until_counted(user)


async def told_unheard(scene: Scene, user: UUID, run: Event[ToolExecuted]) -> str:
    """Let ingest learn of a counted report while the reporter waits for the broker's confirm."""
    await counted_unheard(scene, user, run)
    identifier = await identifier_of(scene, user)
    scene.proxy(REPORTER, "broker").hold(Direction.TO_CLIENT)
    scene.proxy(REPORTER, "stripe").release()
    await scene.until(INGEST, REPORT_IS, user, "reported")
    return identifier


async def waiting_run(scene: Scene) -> tuple[UUID, Event[ToolExecuted]]:
    """Publish a run of a user that does not exist yet; return both once it is recorded."""
    user = uuid4()
    run = past_run(user)
    await scene.publish(run)
    await scene.until(INGEST, RECORDED, run.id)
    return user, run


async def made_unheard(scene: Scene, user: UUID) -> None:
    """Let Stripe make a customer while the provisioner waits for its answer."""
    scene.proxy(PROVISIONER, "stripe").hold(Direction.TO_CLIENT)
    await scene.publish(created(user))
    await eventually(lambda: scene.customers(user), lambda n: n == 1, within=30, every=0.1)


async def announced_unheard(scene: Scene, user: UUID) -> None:
    """Let ingest open an account while the provisioner waits for the broker's confirm."""
    await made_unheard(scene, user)
    scene.proxy(PROVISIONER, "broker").hold(Direction.TO_CLIENT)
    scene.proxy(PROVISIONER, "stripe").release()
    await scene.until(INGEST, ACCOUNT, user)


async def assert_one_customer(scene: Scene, user: UUID) -> None:
    """Wait until a user can be billed; Stripe has one customer of it."""
    await scene.until(INGEST, ACCOUNT, user, within=45)
    assert await scene.customers(user) == 1
