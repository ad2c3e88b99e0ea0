"""`GET /v1/entitlements/{user_id}`: what a user may do, as of when."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from nexus_database import Database
from support.usage_ledger import METER, UsageLedger, hours_ago

from .conftest import PUBLISHING_KEY, Api, running_api


async def test_unknown_user_has_the_plan_that_the_file_says(api: Api) -> None:
    """Here the free one, with nothing used, in the UTC month."""
    user, now = uuid4(), datetime.now(UTC)

    body = await api.entitlements(user)

    assert (body["user_id"], body["account_id"]) == (str(user), str(user))
    assert (body["plan"], body["plan_name"], body["status"]) == ("free", "Free", None)
    assert body["denied"] == [
        {"server_id": "browser", "tool_name": "*"},
        {"server_id": "sql-*", "tool_name": "*"},
    ]
    assert body["limits"][0] == {
        "name": "runs",
        "meter": METER,
        "server_id": "*",
        "tool_name": "*",
        "limit": 1000,
        "used": 0,
        "remaining": 1000,
        "hard": True,
        "period_start": body["period"]["start"],
        "period_end": body["period"]["end"],
    }
    assert body["rate_limits"] == [{"server_id": "*", "per_minute": 60}]
    assert body["period"]["basis"] == "utc_month"
    assert body["period"]["start"].startswith(f"{now:%Y-%m}-01T00:00:00Z")
    assert abs(datetime.fromisoformat(body["as_of"]) - now) < timedelta(minutes=1)


async def test_subscriber_has_the_plan_and_the_period_of_the_subscription(
    api: Api, ledger: UsageLedger
) -> None:
    """What is used is counted to the second at the period's edges, and includes what waits."""
    user = uuid4()
    start = hours_ago(5) + timedelta(minutes=7)
    await ledger.subscribe(user, "pro", period=(start, start + timedelta(days=30)), seats=3)
    for minutes, value in ((-1, 1000), (0, 20), (180, 300)):
        at = start + timedelta(minutes=minutes)
        await ledger.report(user, value, at=at, meter="premium_tool_calls")
    await ledger.runs(user, 4, state="waiting", readings={"@premium": 1})

    body = await api.entitlements(user)

    assert (body["plan"], body["status"], body["seats"]) == ("pro", "active", 3)
    assert body["features"] == ["export"]
    assert body["denied"] == []
    assert body["period"]["basis"] == "stripe"
    assert datetime.fromisoformat(body["period"]["start"]) == start
    limits = {(each["name"], each["server_id"]): each for each in body["limits"]}
    assert set(limits) == {("premium", "browser"), ("premium", "sql-*"), ("llm_cost", "*")}
    assert limits["premium", "browser"]["used"] == 324
    assert limits["premium", "browser"]["remaining"] == 5000 - 324


async def test_a_period_that_stripe_has_not_announced_yet_is_expected(
    api: Api, ledger: UsageLedger
) -> None:
    """It begins where the last one ended, as thresholds are announced by it, too."""
    user, ended = uuid4(), hours_ago(1)
    await ledger.subscribe(user, "pro", period=(ended - timedelta(days=30), ended))
    await ledger.report(user, 20, at=ended + timedelta(minutes=1), meter="premium_tool_calls")
    await ledger.report(user, 900, at=ended - timedelta(minutes=1), meter="premium_tool_calls")

    body = await api.entitlements(user)

    assert body["period"]["basis"] == "stripe"
    assert datetime.fromisoformat(body["period"]["start"]) == ended
    used = {each["used"] for each in body["limits"] if each["name"] == "premium"}
    assert used == {20}


async def test_limit_that_is_passed_has_nothing_remaining(api: Api, ledger: UsageLedger) -> None:
    """Runs without a customer count as well: nobody is without limits by having none."""
    user = uuid4()
    await ledger.runs(user, 1001, state="waiting", at=datetime.now(UTC))

    [runs] = [e for e in (await api.entitlements(user))["limits"] if e["name"] == "runs"]

    assert (runs["used"], runs["remaining"], runs["hard"]) == (1001, 0, True)


async def test_more_waits_than_is_added_up_and_hard_limits_count_as_reached(
    api: Api, ledger: UsageLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much is left is not known then, and what is not known allows nothing."""
    monkeypatch.setattr("usage_ingest.usage_api.storage.MAX_WAITING_RUNS", 10)
    few, many = uuid4(), uuid4()
    for user, number in ((few, 9), (many, 11)):
        await ledger.subscribe(user, "pro")
        await ledger.runs(user, number, state="waiting", readings={"@premium": 1, "@tokens": 100})

    async def limits(user: UUID) -> dict[str, tuple[int, int]]:
        found = (await api.entitlements(user))["limits"]
        return {each["name"]: (each["used"], each["remaining"]) for each in found}

    assert await limits(few) == {"premium": (9, 4991), "llm_cost": (1080, 99_998_920)}
    assert await limits(many) == {"premium": (10, 0), "llm_cost": (1200, 99_998_800)}


async def test_member_has_the_plan_and_the_limits_of_their_account(
    api: Api, ledger: UsageLedger
) -> None:
    """Services and tokens with a claim see what the account has used, and other tokens do not."""
    member, organisation = uuid4(), uuid4()
    await ledger.assign(member, organisation)
    await ledger.subscribe(organisation, "enterprise")
    await ledger.report(organisation, 50)

    def used(body: Any) -> tuple[Any, Any]:
        [limit] = body["limits"]
        return limit["used"], limit["remaining"]

    service = await api.entitlements(member)
    claiming = await api.entitlements(member, api.signer.token(member, organisation))
    without = await api.entitlements(member, api.signer.token(member))

    assert {each["plan"] for each in (service, claiming, without)} == {"enterprise"}
    assert service["account_id"] == str(organisation)
    assert used(service) == used(claiming) == (50, 999_950)
    assert used(without) == (None, None)


async def test_moved_user_has_the_plan_of_the_account_of_today(
    api: Api, ledger: UsageLedger
) -> None:
    """An assignment in the future changes nothing yet."""
    user, organisation = uuid4(), uuid4()
    await ledger.subscribe(organisation, "pro")
    await ledger.assign(user, organisation, since=hours_ago(-1))
    assert (await api.entitlements(user))["plan"] == "free"

    await ledger.assign(user, organisation, since=hours_ago(1))
    assert (await api.entitlements(user))["plan"] == "pro"


async def test_who_may_not_ask_is_refused(api: Api) -> None:
    """No key, a key to publish, another user's token; and a user id that is none."""
    user = uuid4()
    path = f"/v1/entitlements/{user}"

    answers = [
        await api.get(path, None),
        await api.get(path, "unknown"),
        await api.get(path, PUBLISHING_KEY),
        await api.get(path, api.signer.token(uuid4())),
        await api.get("/v1/entitlements/grace"),
    ]

    assert [(each.status, each.body["code"]) for each in answers] == [
        (401, "unauthorized"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (403, "forbidden"),
        (400, "invalid"),
    ]
    assert answers[0].headers["WWW-Authenticate"] == "Bearer"


async def test_without_plans_there_are_no_entitlements(reader: Database, key_set: Path) -> None:
    """An answer that allows everything would be taken for one."""
    async with running_api(reader, key_set, with_plans=False) as api:
        answer = await api.get(f"/v1/entitlements/{UUID(int=5)}")

    assert (answer.status, answer.body["code"]) == (404, "not_found")
