"""usage-ingest, killed between two steps."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chaos.controlled_stack import INGEST, REPORTER, ControlledStack
from chaos.kill_points.points import (
    ACCOUNT,
    ASSIGNED,
    CLAIMING,
    FOLDED,
    LEASED,
    PLANNED,
    RECORDED,
    REPORTED,
    SUBSCRIBED,
    KillPoint,
    Usage,
    claim_with_broker_held,
    count_without_answer,
    forward_without_confirm,
    release,
    row,
)
from metering_chaos.proxies import Direction
from nexus_contracts import Event, EventData
from support.events import tool_run
from support.waiting import eventually
from usage_ingest.storage.totals import DIFFERENT, PARTS

pytestmark = [
    pytest.mark.long,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.timeout(180),
]

RUNS_QUEUE = "usage-ingest.tool-executed"
LABELS = f'queue="{RUNS_QUEUE}",reason="timestamp_in_future"'
DEAD_LETTERED = f"usage_ingest_messages_dead_lettered_total{{{LABELS}}}"

POINTS = (
    # The broker delivers the run again.
    KillPoint(
        "before the commit of runs",
        INGEST,
        lock=("usage_events", "INSERT INTO usage_events"),
        cause=Usage.publish_run,
    ),
    # The broker delivers the run again, and neither the run nor its details are there.
    KillPoint(
        "between a run and its details",
        INGEST,
        lock=("usage_details", "INSERT INTO usage_details"),
        cause=Usage.publish_second_version,
    ),
    # The broker delivers the details again; the run is not touched.
    KillPoint(
        "before the commit of details that come later",
        INGEST,
        before=Usage.record_run,
        lock=("usage_details", "INSERT INTO usage_details"),
        cause=Usage.publish_second_version,
    ),
    # The second delivery is a known duplicate.
    KillPoint(
        "between the commit and the ack of runs",
        INGEST,
        hold="broker",
        cause=Usage.publish_run,
        reached=row(INGEST, RECORDED),
        after=Usage.end_leases,
    ),
    # The run stays due and is claimed later.
    KillPoint(
        "before the commit of a claim",
        INGEST,
        lock=("usage_reports", CLAIMING),
        cause=Usage.publish_run,
    ),
    # The report is forwarded once its lease has ended.
    KillPoint(
        "between the lease and the publish",
        INGEST,
        before=claim_with_broker_held(Direction.TO_SERVER),
        reached=row(INGEST, LEASED),
        after=Usage.end_leases,
    ),
    # The report is with the reporter; it is forwarded again.
    KillPoint(
        "between the publish of a report and its confirm",
        INGEST,
        before=forward_without_confirm,
        after=Usage.end_leases,
    ),
    # The report is forwarded again.
    KillPoint(
        "between the confirm of a report and its mark",
        INGEST,
        before=forward_without_confirm,
        lock=("usage_reports", "UPDATE usage_reports SET state = 'forwarded'"),
        cause=release(INGEST, "broker", Direction.TO_CLIENT),
        after=Usage.end_leases,
    ),
    # The broker delivers the outcome again.
    KillPoint(
        "before the commit of an outcome",
        INGEST,
        before=count_without_answer,
        lock=("usage_reports", "SELECT report_id FROM usage_reports"),
        cause=release(REPORTER, "stripe"),
    ),
    # The second delivery changes nothing.
    KillPoint(
        "between the commit and the ack of an outcome",
        INGEST,
        before=count_without_answer,
        hold="broker",
        cause=release(REPORTER, "stripe"),
        reached=row(INGEST, REPORTED),
    ),
)

CUSTOMER_POINTS = (
    # The broker delivers the event again.
    KillPoint(
        "before the commit of a customer",
        INGEST,
        lock=("billing_accounts", "INSERT INTO billing_accounts"),
        cause=Usage.publish_user,
    ),
    # The second delivery changes nothing.
    KillPoint(
        "between the commit and the ack of a customer",
        INGEST,
        hold="broker",
        cause=Usage.publish_user,
        reached=row(INGEST, ACCOUNT),
        after=Usage.end_leases,
    ),
)

# A fold that was not committed has moved nothing, and the next process repeats it.
FOLD_POINTS = tuple(
    KillPoint(
        f"before the commit of a fold of {part}",
        INGEST,
        lock=(f"folded_{part}", f"WITH taken AS (\n    DELETE FROM {deltas}"),  # noqa: S608
        cause=Usage.publish_run,
    )
    for part, deltas in (("usage", "usage_deltas"), ("amounts", "amount_deltas"))
)

# The broker delivers the event again, and it is stored once.
ASSIGNMENT_POINTS = (
    KillPoint(
        "before the commit of an assignment",
        INGEST,
        lock=("account_assignments", "INSERT INTO account_assignments"),
        cause=Usage.assign,
    ),
    KillPoint(
        "between the commit and the ack of an assignment",
        INGEST,
        hold="broker",
        cause=Usage.assign,
        reached=row(INGEST, ASSIGNED),
    ),
)
SUBSCRIPTION_POINTS = (
    KillPoint(
        "between a subscription and its account's plan",
        INGEST,
        lock=("account_plans", "DELETE FROM account_plans"),
        cause=Usage.subscribe,
    ),
    KillPoint(
        "between the commit and the ack of a subscription",
        INGEST,
        hold="broker",
        cause=Usage.subscribe,
        reached=row(INGEST, PLANNED),
    ),
)


@pytest.mark.parametrize("point", POINTS, ids=str)
async def test_run_is_billed_once(stack: ControlledStack, point: KillPoint) -> None:
    """The next process finishes each step of recording, claiming, forwarding and settling."""
    usage = await Usage.of_customer(stack)

    await point.kill(usage)

    await usage.assert_billed_once()


@pytest.mark.parametrize("point", CUSTOMER_POINTS, ids=str)
async def test_run_before_its_customer_is_billed_once(
    stack: ControlledStack, point: KillPoint
) -> None:
    """The next process opens the account, and the waiting run is billed."""
    usage = await Usage.before_its_user(stack)

    await point.kill(usage)

    await stack.until(INGEST, ACCOUNT, usage.user)
    await usage.assert_billed_once()


@pytest.mark.parametrize("point", FOLD_POINTS, ids=str)
async def test_totals_are_what_a_scan_finds(stack: ControlledStack, point: KillPoint) -> None:
    """The run is in them once, whichever process folded it."""
    usage = await Usage.of_customer(stack)

    await point.kill(usage)

    await usage.assert_billed_once()
    await stack.until(INGEST, FOLDED, usage.user)
    for part in PARTS:
        assert await stack.rows(INGEST, DIFFERENT[part].text) == []


@pytest.mark.parametrize("point", ASSIGNMENT_POINTS, ids=str)
async def test_assigned_users_run_is_billed_to_the_account(
    stack: ControlledStack, point: KillPoint
) -> None:
    """The account has it once, and the user's own customer has none."""
    usage = await Usage.of_customer(stack)
    team = await stack.customer()
    usage = replace(usage, account=team)

    await point.kill(usage)

    await stack.until(INGEST, ASSIGNED, usage.user)
    await usage.publish_run()
    await stack.until_counted(team)
    assert await stack.counted(usage.user) == 0
    assert len(await stack.rows(INGEST, ASSIGNED, usage.user)) == 1


@pytest.mark.parametrize("point", SUBSCRIPTION_POINTS, ids=str)
async def test_subscription_is_stored_with_its_plan(
    stack: ControlledStack, point: KillPoint
) -> None:
    """All that follows from it is stored with it, once."""
    usage = await Usage.of_customer(stack)

    await point.kill(usage)

    await stack.until(INGEST, PLANNED, usage.user)
    assert await stack.rows(INGEST, PLANNED, usage.user) == [("pro",)]
    assert len(await stack.rows(INGEST, SUBSCRIBED, usage.user)) == 1


@pytest.mark.parametrize(
    "confirmed", [False, True], ids=["before its confirm", "between its confirm and the ack"]
)
async def test_dead_letter_is_written_twice(stack: ControlledStack, *, confirmed: bool) -> None:
    """The copy is safe, and the original is delivered again: a second copy, and no loss."""
    usage = await Usage.of_customer(stack)
    invalid = tool_run(usage.user, time=datetime.now(UTC) + timedelta(days=1))
    await dead_letter_without_confirm(usage, invalid)
    if confirmed:
        before = await stack.metric(INGEST, DEAD_LETTERED)
        proxy = stack.proxy(INGEST, "broker")
        proxy.hold(Direction.TO_SERVER)
        proxy.release(Direction.TO_CLIENT)
        await stack.until_metric(INGEST, DEAD_LETTERED, above=before)
    await stack.kill(INGEST)
    await stack.restart(INGEST)

    await usage.assert_billed_once()
    await eventually(stack.letters, lambda bodies: bodies.count(invalid.body()) == 2)


async def dead_letter_without_confirm(usage: Usage, invalid: Event[EventData]) -> None:
    """Have the copy of an invalid event in its queue while ingest waits for its confirm."""
    stack = usage.stack
    await usage.publish_run()
    await usage.assert_billed_once()
    # A table lock would not do: a statement that waits for it for a second means an outage.
    async with stack.suspended(INGEST):
        await stack.publish(invalid)
        await stack.until_taken(RUNS_QUEUE)
        stack.proxy(INGEST, "broker").hold(Direction.TO_CLIENT)
    await eventually(stack.letters, lambda bodies: invalid.body() in bodies, within=30, every=0.2)
