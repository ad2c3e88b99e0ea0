"""The checker on the running stack: clean after a run, and not after a manipulation."""

import asyncio
from datetime import UTC, datetime

import aiohttp
import pytest

from chaos.controlled_stack import INGEST, ControlledStack
from metering_chaos.checking import check
from metering_chaos.findings import Violation
from metering_chaos.gathering import gather_evidence
from metering_chaos.load import make_load, make_organisations
from metering_chaos.organisations import found_organisations
from metering_chaos.process_faults import price_model
from metering_chaos.publisher import LoadPublisher
from metering_chaos.run import settle

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
]

DELETE_ONE = """
DELETE FROM usage_events
 WHERE event_id = (SELECT event_id FROM usage_events LEFT JOIN usage_details d USING (event_id)
                    WHERE billing_state = 'not_billable' AND d.event_id IS NULL LIMIT 1)
"""


async def test_checker_finds_an_extra_charge_and_a_lost_event(stack: ControlledStack) -> None:
    """After a clean run, one event is deleted from the ledger and one charge is made by hand."""
    await found_organisations(stack.environment, make_organisations(seed=5))
    load = make_load(seed=5, events=300, seconds=5, start=datetime.now(UTC))
    publisher = LoadPublisher(stack.environment.stack.amqp_url("publisher"), load)
    publishing = asyncio.create_task(publisher.run())
    await price_model(stack.environment)
    evidence, verdict = await settle(stack.environment, publisher, publishing, patience=90)
    assert verdict.clean, verdict.findings

    await stack.rows(INGEST, DELETE_ONE)
    await _charge(stack, evidence.reports[0].customer)

    after = check(await gather_evidence(stack.environment, publisher))
    assert after.count(Violation.LOST) == 1
    assert after.count(Violation.DOUBLE_BILLED) == 1


async def _charge(stack: ControlledStack, customer: str) -> None:
    url = f"{stack.environment.stack.emulator.url}/v1/billing/meter_events"
    form = {
        "event_name": "tool_call_executed",
        "identifier": "by-hand",
        "payload[stripe_customer_id]": customer,
        "payload[value]": "1",
    }
    headers = {"Authorization": f"Bearer {stack.environment.stack.stripe_key}"}
    async with (
        aiohttp.ClientSession(headers=headers, raise_for_status=True) as session,
        session.post(url, data=form),
    ):
        return
