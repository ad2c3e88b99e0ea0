"""`adopt` restores by account: many users share a customer, and assignments came and went."""

from datetime import timedelta
from uuid import UUID

from integration.usage_ingest.lost_ledger import (
    LATER,
    MINUTE,
    ONE,
    RULES,
    RUNS,
    TOKENS,
    LostLedger,
    output,
    run,
)
from nexus_contracts import CallRecord, SubscriptionChanged, read_call_record
from nexus_plans import Charge
from usage_ingest.charging import Charges
from usage_ingest.entry import Entry
from usage_ingest.metering import ToolRun
from usage_ingest.recovery.storage import Recovery
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.subscriptions import Subscriptions

TWO, TEAM = UUID(int=2), UUID(int=101)


async def sums(lost: LostLedger) -> list[tuple[str, int]]:
    """Return what each customer is charged."""
    found = await lost.rows(
        "SELECT stripe_customer_id, sum(value)::int FROM usage_reports GROUP BY 1 ORDER BY 1"
    )
    return [(customer, value) for customer, value in found]


async def test_team_has_the_runs_of_all_its_users_back(lost: LostLedger) -> None:
    """And each user those that ended before they joined, in the same window."""
    await lost.announce(TWO, "cus_two")
    await lost.announce(TEAM, "cus_team")
    for user in (ONE, TWO):
        await lost.assign(user, TEAM, MINUTE + timedelta(seconds=5), 1)
    runs = [run(second, user) for user in (ONE, TWO) for second in (1, 4, 5, 6, 12)]
    lost.back_up()
    await lost.record(*runs)
    await lost.claim()
    before = await sums(lost)
    calls = await lost.lose()
    await lost.record(*runs)

    assert await lost.adopt(calls, "--execute") == output(0, "4 0 0 4 10")
    assert await lost.claim() == 0
    assert await sums(lost) == before == [("cus_one", 2), ("cus_team", 6), ("cus_two", 2)]


async def test_user_who_moved_after_the_backup_is_billed_once(lost: LostLedger) -> None:
    """The assignment is announced again before; without it, the missing runs are said."""
    await lost.announce(TEAM, "cus_team")
    lost.back_up()
    await lost.assign(ONE, TEAM, MINUTE + timedelta(seconds=5), 1)
    await lost.record(run(1), run(6))
    await lost.claim()
    calls = await lost.lose()
    await lost.record(run(1), run(6))

    early = await lost.adopt(calls)
    await lost.assign(ONE, TEAM, MINUTE + timedelta(seconds=5), 1)
    adopted = await lost.adopt(calls, "--execute")

    missing = "events missing, to be published again: 1 (cus_team 1)"
    assert early == (
        1,
        [f"{output(0, '2 0 0 2 1')[1][0]}; nothing was changed: add --execute", missing],
    )
    assert adopted == output(0, "2 0 0 2 2")
    assert await lost.claim() == 0
    assert await sums(lost) == [("cus_one", 1), ("cus_team", 1)]


async def test_run_claimed_before_its_user_was_moved_back_in_time_is_billed_once(
    lost: LostLedger,
) -> None:
    """It was its user's when it was claimed; by all that is known now it is the team's."""
    await lost.announce(TEAM, "cus_team")
    lost.back_up()
    await lost.record(run(1), run(2))
    await lost.claim()
    await lost.assign(ONE, TEAM, MINUTE, 1)
    await lost.record(run(3))
    await lost.claim()
    calls = await lost.lose()
    await lost.assign(ONE, TEAM, MINUTE, 1)
    await lost.record(run(1), run(2), run(3), run(4))

    planned = await lost.adopt(calls)
    adopted = await lost.adopt(calls, "--execute")

    assert planned[0] == 0
    assert planned[1][0].startswith(adopted[1][0])
    assert adopted == output(0, "2 0 0 2 3")
    assert await lost.claim() == 1
    assert await sums(lost) == [("cus_one", 2), ("cus_team", 2)]


async def test_run_claimed_for_an_overruled_assignment_is_billed_once(lost: LostLedger) -> None:
    """From the same time on the user was said to be in one team, then in another."""
    other = UUID(int=102)
    await lost.announce(TEAM, "cus_team")
    await lost.announce(other, "cus_other")
    lost.back_up()
    await lost.assign(ONE, TEAM, MINUTE, 1)
    await lost.record(run(1))
    await lost.claim()
    calls = await lost.lose()
    for account, revision in ((other, 2), (TEAM, 1)):
        await lost.assign(ONE, account, MINUTE, revision)
    await lost.record(run(1))

    assert await lost.adopt(calls, "--execute") == output(0, "1 0 0 1 1")
    assert await lost.claim() == 0


async def test_runs_before_a_user_joined_are_never_the_teams(lost: LostLedger) -> None:
    """The team lacks a run that is not back yet: it takes no other user's own."""
    await lost.announce(TEAM, "cus_team")
    await lost.assign(ONE, TEAM, MINUTE + timedelta(seconds=5), 1)
    lost.back_up()
    await lost.record(run(6))
    await lost.claim()
    calls = await lost.lose()
    await lost.record(run(1))

    code, lines = await lost.adopt(calls, "--execute")

    assert (code, lines[1:]) == (1, ["events missing, to be published again: 1 (cus_team 1)"])
    assert await lost.claim() == 1


CHARGES: Charges = {
    None: {"@premium": Charge(RUNS), "@tokens": Charge(TOKENS, 30)},
    "pro": {"@premium": Charge("premium"), "@tokens": Charge(TOKENS, 10)},
}


def keyed(second: float, **readings: int) -> Entry:
    """Return a run with these readings, whose keys have an underscore for the sign of a route."""
    event: ToolRun = run(second)
    read = {key.replace("_", "@", 1) if key[0] == "_" else key: n for key, n in readings.items()}
    return Entry.of(event, RULES, LATER)._replace(readings=read)


async def subscribe(lost: LostLedger) -> None:
    """Give the user a plan from the fifth second on."""
    since = MINUTE + timedelta(seconds=5)
    change = SubscriptionChanged(
        subscription_id="sub_1",
        account_id=ONE,
        stripe_customer_id="cus_one",
        revision=1,
        plan_type="pro",
        status="active",
        items=[],
        plan_since=since,
        as_of=since,
    )
    await Subscriptions(lost.database, best=max).apply(change)


async def restored(lost: LostLedger, calls: str) -> tuple[int, dict[str, int]]:
    """Restore the ledger; return the events claimed, and those missing."""
    read = [read_call_record(line) for line in calls.splitlines()]
    records = [each for each in read if isinstance(each, CallRecord)]
    recovery = Recovery(
        lost.database,
        window=timedelta(seconds=10),
        execute=True,
        charges=CHARGES,
        counting={RUNS, "@premium"},
        unique_meters={"pro": "unique_tools"},
    )
    await recovery.restore_reports(records)
    events = [await recovery.claim_events(records, overruled=each) for each in (False, True)]
    assert not any(events[-1].differences.values.values())
    return sum(each.claimed for each in events), dict(events[-1].missing)


async def test_routes_are_found_by_the_plan_of_their_time(lost: LostLedger) -> None:
    """Free and paid in one window: the premium run after the change is on a meter of its own."""
    lost.back_up()
    await subscribe(lost)
    entries = [
        keyed(1, _premium=1),
        keyed(2, tool_call_executed=1, _tokens=5),
        keyed(6, _premium=1),
        keyed(7, tool_call_executed=1, _tokens=5),
        keyed(8, tool_call_executed=1),
    ]
    await Ledger(lost.database).record(entries)
    await claim(lost)
    before = await lost.reports()
    calls = await lost.lose()
    await subscribe(lost)
    await Ledger(lost.database).record(entries)

    assert await restored(lost, calls) == (5, {})
    assert await claim(lost) == 0
    assert [each[:1] + each[2:] for each in await lost.reports()] == [
        each[:1] + each[2:] for each in before
    ]


async def test_run_of_an_unknown_plan_is_found_by_the_meters_of_its_claim(
    lost: LostLedger,
) -> None:
    """The subscription is not announced again yet: another plan has such a meter."""
    lost.back_up()
    await subscribe(lost)
    await Ledger(lost.database).record([keyed(6, _premium=1)])
    await claim(lost)
    calls = await lost.lose()
    await Ledger(lost.database).record([keyed(6, _premium=1)])

    assert await restored(lost, calls) == (1, {})


async def test_reports_without_runs_of_their_own_take_none(lost: LostLedger) -> None:
    """A late price and unique tools: their reports are back, and no run is claimed for them."""
    lost.back_up()
    await lost.record(run(1), run(2))
    await lost.claim()
    await lost.rows(
        "INSERT INTO usage_reports (report_id, claim_id, identifier, user_id, stripe_customer_id,"
        " generation, meter, value, dimensions, occurred_at, event_count, late)"
        " SELECT gen_random_uuid(), n.claim, 'more:' || n.meter, user_id, stripe_customer_id, 1,"
        " n.meter, 1, '{}', occurred_at, 1, n.late FROM usage_reports,"
        " LATERAL (VALUES (claim_id, 'unique_tools', false),"
        " (gen_random_uuid(), 'tokens_used', true)) n(claim, meter, late) RETURNING 1"
    )
    calls = await lost.lose()
    await lost.record(run(1), run(2), run(3, token_count=1))

    assert await restored(lost, calls) == (2, {"cus_one": 1})
    assert await lost.rows("SELECT meter FROM usage_reports WHERE late") == [("tokens_used",)]
    assert await lost.claim() == 1


async def claim(lost: LostLedger) -> int:
    """Claim by the plans."""
    claims = Claims(
        lost.database,
        window=timedelta(seconds=10),
        dimensions=(),
        charges=CHARGES,
        routes={key for routes in CHARGES.values() for key in routes},
    )
    return (await claims.claim(LATER)).events
