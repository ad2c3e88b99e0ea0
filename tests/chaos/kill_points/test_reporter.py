"""stripe-reporter, killed between two steps."""

from typing import Final

import pytest

from chaos.controlled_stack import REPORTER, ControlledStack
from chaos.kill_points.points import (
    KillPoint,
    Usage,
    call_is,
    count_without_answer,
    publish_outcome_without_confirm,
    release,
)
from metering_chaos.proxies import Direction

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(180),
]

DONE = 'stripe_reporter_messages_done_total{queue="stripe-reporter.usage-recorded"}'


async def confirm_outcome(usage: Usage) -> None:
    """Let the reporter receive the confirm of its outcome, and finish the delivery."""
    before = await usage.stack.metric(REPORTER, DONE)
    usage.stack.proxy(REPORTER, "broker").release(Direction.TO_CLIENT)
    await usage.stack.until_metric(REPORTER, DONE, above=before)


CALLS: Final[dict[KillPoint, int | None]] = {
    # No call was made; the next process makes it.
    KillPoint(
        "before the claim",
        REPORTER,
        lock=("meter_calls", "INSERT INTO meter_calls"),
        cause=Usage.publish_run,
    ): None,
    # The call never left; it is made once the row is too old.
    KillPoint(
        "between the claim and the call",
        REPORTER,
        hold="stripe",
        cause=Usage.publish_run,
        reached=call_is("calling"),
        after=Usage.age_call,
    ): None,
    # The second call is a duplicate, and adds nothing.
    KillPoint(
        "between the effect of a call and its answer",
        REPORTER,
        before=count_without_answer,
        after=Usage.age_call,
    ): 2,
    # The call is made again, and adds nothing.
    KillPoint(
        "between the answer and its record",
        REPORTER,
        before=count_without_answer,
        lock=("meter_calls", "UPDATE meter_calls"),
        cause=release(REPORTER, "stripe"),
        after=Usage.age_call,
    ): None,
    # The next process publishes the outcome without a call.
    KillPoint(
        "between the record and the outcome",
        REPORTER,
        before=count_without_answer,
        hold="broker",
        cause=release(REPORTER, "stripe"),
        reached=call_is("accepted"),
    ): 1,
    # The outcome is published twice.
    KillPoint(
        "between the outcome and its confirm", REPORTER, before=publish_outcome_without_confirm
    ): 1,
    # The second delivery finds the report counted.
    KillPoint(
        "between the confirm of an outcome and the ack",
        REPORTER,
        before=publish_outcome_without_confirm,
        hold="broker",
        cause=confirm_outcome,
    ): 1,
}
"""By kill point: how many calls Stripe receives, where that is certain."""


@pytest.mark.parametrize("point", CALLS, ids=str)
async def test_report_is_counted_once(stack: ControlledStack, point: KillPoint) -> None:
    """The next process calls again only where the journal has no answer."""
    usage = await Usage.of_customer(stack)

    await point.kill(usage)

    await usage.assert_billed_once()
    if CALLS[point] is not None:
        assert await stack.calls(await usage.identifier()) == CALLS[point]
