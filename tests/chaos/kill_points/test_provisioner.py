"""customer-provisioner, killed between two steps."""

import pytest

from chaos.controlled_stack import PROVISIONER, ControlledStack
from chaos.kill_points.points import (
    ANNOUNCED,
    CALLED,
    STORED,
    KillPoint,
    Usage,
    announce_without_confirm,
    create_customer_without_answer,
    release,
    row,
)
from metering_chaos.proxies import Direction

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(180),
]

POINTS = (
    # The broker delivers the event again.
    KillPoint(
        "before the commit of a user",
        PROVISIONER,
        lock=("user_profiles", "INSERT INTO user_profiles"),
        cause=Usage.publish_user,
    ),
    # The call never left; it is made once the lease has ended.
    KillPoint(
        "between the claim and the call",
        PROVISIONER,
        hold="stripe",
        cause=Usage.publish_user,
        reached=row(PROVISIONER, CALLED),
        after=Usage.end_attempt,
    ),
    # The second call returns the same customer.
    KillPoint(
        "between the effect of a call and its answer",
        PROVISIONER,
        before=create_customer_without_answer,
        after=Usage.end_attempt,
    ),
    # The second call returns the same customer.
    KillPoint(
        "between the answer and its record",
        PROVISIONER,
        before=create_customer_without_answer,
        lock=("user_profiles", "SELECT user_id, email"),
        cause=release(PROVISIONER, "stripe"),
        after=Usage.end_attempt,
    ),
    # The next process announces the customer.
    KillPoint(
        "between the record and the announcement",
        PROVISIONER,
        before=create_customer_without_answer,
        hold="broker",
        cause=release(PROVISIONER, "stripe"),
        reached=row(PROVISIONER, STORED),
    ),
    # The customer is announced again, which changes nothing.
    KillPoint(
        "between the announcement and its confirm", PROVISIONER, before=announce_without_confirm
    ),
    # The customer is announced again, which changes nothing.
    KillPoint(
        "between the confirm of an announcement and its mark",
        PROVISIONER,
        before=announce_without_confirm,
        lock=("user_profiles", "SELECT user_id FROM user_profiles"),
        cause=release(PROVISIONER, "broker", Direction.TO_CLIENT),
    ),
)


@pytest.mark.parametrize("point", POINTS, ids=str)
async def test_user_gets_one_customer(stack: ControlledStack, point: KillPoint) -> None:
    """The next process finishes the work and marks the announcement, and the run is billed."""
    usage = await Usage.before_its_user(stack)

    await point.kill(usage)

    await usage.assert_one_customer()
    await usage.assert_billed_once()
    await stack.until(PROVISIONER, ANNOUNCED, usage.user)
