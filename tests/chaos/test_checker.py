"""The checker on the running stack: clean if all is well, and not if somebody meddles."""

import asyncio
from datetime import UTC, datetime

import aiohttp
import pytest

from chaos.scene import INGEST, Scene
from metering_chaos.checking import Violation, check
from metering_chaos.gathering import gather_evidence
from metering_chaos.load import make_load
from metering_chaos.publisher import LoadPublisher
from metering_chaos.run import settle

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
]

DELETE_ONE = """
DELETE FROM usage_events
 WHERE event_id = (SELECT event_id FROM usage_events WHERE billing_state = 'not_billable' LIMIT 1)
"""


async def test_the_checker_sees_a_charge_too_many_and_a_lost_event(scene: Scene) -> None:
    """After a clean run, one event is deleted from the ledger and one charge made by hand."""
    load = make_load(seed=5, events=300, seconds=5, start=datetime.now(UTC))
    publisher = LoadPublisher(scene.environment.stack.amqp_url("publisher"), load)
    publishing = asyncio.create_task(publisher.run())
    evidence, verdict = await settle(scene.environment, publisher, publishing, patience=90)
    assert verdict.clean, verdict.findings

    await scene.rows(INGEST, DELETE_ONE)
    await _charge(scene, evidence.reports[0].customer)

    after = check(await gather_evidence(scene.environment, publisher))
    assert after.count(Violation.LOST) == 1
    assert after.count(Violation.DOUBLE_BILLED) == 1


async def _charge(scene: Scene, customer: str) -> None:
    stack = scene.environment.stack
    form = {
        "event_name": "tool_call_executed",
        "identifier": "by-hand",
        "payload[stripe_customer_id]": customer,
        "payload[value]": "1",
    }
    headers = {"Authorization": f"Bearer {stack.stripe_key}"}
    async with (
        aiohttp.ClientSession(headers=headers, raise_for_status=True) as session,
        session.post(f"{stack.emulator.url}/v1/billing/meter_events", data=form),
    ):
        return
