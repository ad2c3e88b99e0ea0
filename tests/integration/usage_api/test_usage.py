"""`GET /v1/usage`: what a user has used, and what became of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from nexus_database import Database
from support.usage_ledger import METER, UsageLedger, hours_ago

from .conftest import KEY, Api, running_api

DAY = timedelta(days=1)


def midnight(days_ago: int) -> datetime:
    """Return the beginning of a day in UTC."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - days_ago * DAY


def written(moment: datetime) -> str:
    """Return a time as answers have it."""
    return moment.isoformat().replace("+00:00", "Z")


async def test_recorded_runs_are_given_by_day_and_tool(api: Api, ledger: UsageLedger) -> None:
    """Days are UTC's; tokens are added up; other users' runs are not in it."""
    user, other = uuid4(), uuid4()
    await ledger.runs(user, 3, at=midnight(2) + timedelta(hours=23), tokens=40)
    await ledger.runs(user, 2, at=midnight(1))
    await ledger.runs(user, 1, at=midnight(1) + timedelta(hours=5), tool=("sql", "query"))
    await ledger.runs(other, 9, at=midnight(1))

    body = await api.usage(user, from_=midnight(3).date(), to=midnight(0).date())

    assert (body["user_id"], body["scope"], body["by"]) == (str(user), "user", "day")
    assert (body["from"], body["to"]) == (written(midnight(3)), written(midnight(0)))
    assert [tuple(row.values()) for row in body["recorded"]] == [
        (written(midnight(2)), "files", "read", 3, 120),
        (written(midnight(1)), "files", "read", 2, 0),
        (written(midnight(1)), "sql", "query", 1, 0),
    ]


async def test_names_are_given_as_they_were_recorded(api: Api, ledger: UsageLedger) -> None:
    """Whatever signs they have; and a span without runs has none."""
    user, odd = uuid4(), ('fi"les\\ \u2028</script>', "læs \U0001f4c4\t")
    await ledger.runs(user, tool=odd)

    [row] = (await api.usage(user))["recorded"]
    empty = await api.usage(user, from_="2020-01-01", to="2020-01-02")

    assert (row["server_id"], row["tool_name"]) == odd
    assert empty["recorded"] == []


async def test_runs_are_given_by_hour(api: Api, ledger: UsageLedger) -> None:
    """A span is widened to whole hours."""
    user, noon = uuid4(), midnight(1) + timedelta(hours=12)
    await ledger.runs(user, 1, at=noon + timedelta(minutes=59))
    await ledger.runs(user, 1, at=noon + timedelta(hours=1))

    start, end = written(noon + timedelta(minutes=1)), written(noon + 1.5 * DAY / 24)
    body = await api.usage(user, by="hour", from_=start, to=end)

    assert (body["from"], body["to"]) == (written(noon), written(noon + timedelta(hours=2)))
    assert [row["start"] for row in body["recorded"]] == [
        written(noon),
        written(noon + timedelta(hours=1)),
    ]


async def test_waiting_amounts_say_why(api: Api, ledger: UsageLedger) -> None:
    """Accepted and waiting add up to what was reported; a superseded report is in neither."""
    user = uuid4()
    await ledger.report(user, 100)
    for state, value in (("pending", 1), ("forwarded", 2)):
        await ledger.report(user, value, state=state)
    await ledger.report(user, 4, state="rejected", reason="customer_deleted")
    await ledger.report(user, 50, state="superseded", reason="customer_deleted")
    await ledger.report(user, 16, state="rejected_later", reason="no_meter")
    await ledger.runs(user, 8, state="waiting")

    [row] = (await api.usage(user))["amounts"]

    assert (row["meter"], row["accepted"], row["waiting"]) == (METER, 100, 31)
    assert row["why"] == {"not_sent": 1, "not_answered": 2, "refused": 20, "no_customer": 8}
    assert row["reasons"] == {"customer_deleted": 4, "no_meter": 16}
    assert "shadow" not in row


async def test_shadow_amounts_are_neither_accepted_nor_waiting(
    api: Api, ledger: UsageLedger
) -> None:
    """They were reported in another way; nobody else's are shown."""
    user, other = uuid4(), uuid4()
    await ledger.report(user, 100)
    await ledger.report(user, 7, state="shadow")
    await ledger.report(other, 50, state="shadow")

    [row] = (await api.usage(user))["amounts"]

    assert (row["accepted"], row["waiting"], row["why"], row["shadow"]) == (100, 0, {}, 7)


async def test_waiting_runs_are_charged_as_their_plan_says(api: Api, ledger: UsageLedger) -> None:
    """A route's readings wait on the meter of the plan, with its markup."""
    user = uuid4()
    await ledger.subscribe(user, "pro")
    await ledger.runs(user, 2, state="waiting", readings={"@premium": 1, "@tokens": 500})

    rows = (await api.usage(user))["amounts"]

    assert {row["meter"]: row["waiting"] for row in rows} == {
        "premium_tool_calls": 2,
        "llm_cost_micros": 1200,
    }


async def test_meters_have_the_names_and_units_of_the_plans(
    api: Api, reader: Database, tmp_path: Path
) -> None:
    """So that no page has to know them; without a file of plans nothing is said."""
    with_plans = await api.usage(uuid4())
    async with running_api(reader, tmp_path / "others.json", with_plans=False) as other:
        without = await other.usage(uuid4())

    assert with_plans["meters"] == {
        "premium_tool_calls": {"display_name": "Premium tool calls", "unit": "runs"},
        "llm_cost_micros": {"display_name": "LLM cost", "unit": "micro-USD"},
        "unique_tools": {"display_name": "Unique tools", "unit": "tools"},
    }
    assert without["meters"] == {}


async def test_service_asks_about_another_account_than_the_users(
    api: Api, ledger: UsageLedger
) -> None:
    """What waits for that account's customer is charged by that account's plan."""
    user, organisation = uuid4(), uuid4()
    await ledger.assign(user, organisation, since=hours_ago(2))
    await ledger.subscribe(organisation, "free")
    await ledger.subscribe(user, "pro")
    await ledger.runs(user, 1, at=hours_ago(3), state="waiting", readings={"@tokens": 1000})

    own = (await api.get(f"/v1/usage?user={user}&account={user}")).body

    assert [row["waiting"] for row in own["amounts"]] == [1200]  # 20 % as of pro, not 30 % of free


async def test_member_sees_the_totals_of_an_account_only_with_a_claim(
    api: Api, ledger: UsageLedger
) -> None:
    """A member's token has their own runs; with a claim, also what their account pays for."""
    member, organisation = uuid4(), uuid4()
    await ledger.assign(member, organisation)
    await ledger.runs(member, 2)
    await ledger.report(organisation, 70)

    without, with_claim = await api.usage(member), await api.usage(member, organisation)

    assert "amounts" not in without
    assert without["account_id"] == with_claim["account_id"] == str(organisation)
    assert with_claim["scope"] == "account"
    assert [row["accepted"] for row in with_claim["amounts"]] == [70]
    assert sum(row["runs"] for row in without["recorded"]) == 2


async def test_account_without_a_claim_for_it_is_refused(api: Api, ledger: UsageLedger) -> None:
    """Naming an account in the query gives no right to it; one's own needs none."""
    user, organisation = uuid4(), uuid4()
    await ledger.assign(user, organisation)
    await ledger.report(user, 5, at=hours_ago(500))
    token = api.signer.token(user)

    foreign = await api.get(f"/v1/usage?account={organisation}", token)
    own = await api.get(f"/v1/usage?account={user}", token)

    assert (foreign.status, foreign.body["code"]) == (403, "forbidden")
    assert [row["accepted"] for row in own.body["amounts"]] == [5]


async def test_service_reads_any_user_with_the_right_to_usage(
    api: Api, ledger: UsageLedger
) -> None:
    """It sees the account that the user is in, or the one it names."""
    user, organisation = uuid4(), uuid4()
    await ledger.assign(user, organisation)
    await ledger.report(organisation, 7)
    await ledger.report(user, 3)

    now_in, named = [
        await api.get(f"/v1/usage?user={user}{more}", KEY) for more in ("", f"&account={user}")
    ]

    assert [row["accepted"] for row in now_in.body["amounts"]] == [7]
    assert [row["accepted"] for row in named.body["amounts"]] == [3]


async def test_moved_user_waits_with_the_account_of_the_run(api: Api, ledger: UsageLedger) -> None:
    """Runs from before a move wait with the account that they were made in."""
    user, organisation = uuid4(), uuid4()
    await ledger.runs(user, 3, at=hours_ago(50), state="waiting")
    await ledger.assign(user, organisation, since=hours_ago(10))
    await ledger.runs(user, 4, at=hours_ago(5), state="waiting")

    of_organisation = await api.usage(user, organisation)
    own = await api.get(f"/v1/usage?account={user}", api.signer.token(user))

    assert sum(row["waiting"] for row in of_organisation["amounts"]) == 4
    assert sum(row["waiting"] for row in own.body["amounts"]) == 3


async def test_too_many_rows_are_refused(
    api: Api, ledger: UsageLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says what to ask for instead."""
    monkeypatch.setattr("usage_ingest.usage_api.storage.MAX_ROWS", 2)
    user = uuid4()
    for name in "abc":
        await ledger.runs(user, tool=("files", name))

    answer = await api.get("/v1/usage", api.signer.token(user))

    assert (answer.status, answer.body["code"]) == (413, "too_large")


async def test_nothing_is_answered_while_totals_are_incomplete(
    api: Api, ledger: UsageLedger
) -> None:
    """After an upgrade the totals lack what is older, and limits would seem unused."""
    await ledger.execute("UPDATE totals_progress SET as_of = NULL WHERE part = 'amounts'")

    usage = await api.get("/v1/usage", api.signer.token(uuid4()))
    entitlements = await api.get(f"/v1/entitlements/{uuid4()}")
    ready = await api.get("/readyz", None)

    assert (usage.status, entitlements.status, ready.status) == (503, 503, 503)
    assert "totals --rebuild" in str(ready.body)
