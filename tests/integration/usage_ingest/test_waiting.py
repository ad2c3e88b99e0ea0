"""Whose usage waits for a customer that nobody has announced."""

import json
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import pytest

from integration.usage_ingest.command import command, settings_of
from nexus_contracts import UserAssigned
from nexus_database import Database
from support.commands import in_a_pipe
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.waiting import read_waiting

NOW: Final = datetime.now(UTC)
RULES: Final = BillingRules("runs", None, frozenset({"succeeded"}))


async def record(database: Database, user: UUID, *ages: timedelta, source: str = "hub") -> None:
    """Record a run of ``user`` for each age."""
    runs = [tool_run(user, time=NOW - age, source=source) for age in ages]
    await Ledger(database).record([Entry.of(run, RULES, NOW) for run in runs])


async def test_the_longest_wait_comes_first_with_its_runs_and_sources(database: Database) -> None:
    """Those whose customer is known do not wait; a member's runs wait for the organisation's."""
    unannounced, member, team, known = uuid4(), uuid4(), uuid4(), uuid4()
    accounts = Accounts(database)
    await accounts.apply(provisioned(known, "cus_known").data)
    await accounts.apply(provisioned(member, "cus_member").data)
    since = NOW - timedelta(days=30)
    assigned = UserAssigned(user_id=member, account_id=team, since=since, revision=1)
    await accounts.assign(assigned)
    await record(database, known, timedelta(hours=9))
    await record(database, unannounced, timedelta(minutes=3), timedelta(hours=2), source="edge")
    await record(database, unannounced, timedelta(minutes=4), source="hub")
    await record(database, member, timedelta(hours=5))

    waiting = await read_waiting(database)

    assert [(each.account_id, each.user_id, each.runs, each.sources) for each in waiting] == [
        (team, member, 1, ("hub",)),
        (unannounced, unannounced, 3, ("edge", "hub")),
    ]
    assert waiting[1].oldest == NOW - timedelta(hours=2)
    assert waiting[1].newest == NOW - timedelta(minutes=3)


async def test_the_command_fails_if_somebody_waits_too_long(database: Database) -> None:
    """It says who; without anybody it says so and succeeds."""
    nobody = await command(database, "waiting")
    assert (nobody[0], nobody[1].splitlines()[-1]) == (0, "nobody's usage waits for a customer")

    user = uuid4()
    await record(database, user, timedelta(hours=2))
    late = await command(database, "waiting")
    assert late[0] == 1
    assert str(user) in late[1]
    allowed = await command(database, "waiting", "--late-after", "86400", "--json")
    assert allowed[0] == 0
    [waiting] = json.loads(allowed[1])["waiting"]
    assert (waiting["user_id"], waiting["runs"], waiting["sources"]) == (str(user), 1, ["hub"])


async def test_the_command_and_the_alert_allow_the_same_wait(database: Database) -> None:
    """A setting raises it for both, and an argument for one call."""
    await record(database, uuid4(), timedelta(hours=2))
    settings = settings_of(database) | {"WAITING_ALLOWED_SECONDS": "86400"}

    allowed = await in_a_pipe("usage_ingest", "waiting", **settings)
    at_once = await in_a_pipe("usage_ingest", "waiting", "--late-after", "0", **settings)

    assert (allowed.code, at_once.code) == (0, 1)


@pytest.mark.parametrize("most", ["0", "-1", "1.5", "many"])
async def test_number_of_rows_is_at_least_one(database: Database, most: str) -> None:
    """`--most -1` left out the last row."""
    code, _, error = await command(database, "waiting", f"--most={most}")

    assert (code, "no whole number above 0" in error) == (2, True)
