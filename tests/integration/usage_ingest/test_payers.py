"""Usage is paid by the account that its user was in when the run ended."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from integration.usage_ingest.test_accounts import WAITING
from nexus_contracts import UserAssigned
from nexus_database import Database
from support.events import provisioned, tool_run
from usage_ingest.entry import Entry
from usage_ingest.explanation import explain, explain_payers
from usage_ingest.metering import BillingRules
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reader import LedgerReader
from usage_ingest.storage.reports import ReportAnswer, Reports

RULES = BillingRules("runs", None, frozenset({"succeeded"}))
NOW = datetime.now(UTC)
MINUTE = NOW.replace(second=0, microsecond=0) - timedelta(minutes=10)


def at(second: float) -> datetime:
    """Return a time in a minute whose windows have all closed."""
    return MINUTE + timedelta(seconds=second)


class Payers:
    """A ledger, and what a test does to it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.accounts = Accounts(database)
        self._revision = 0

    async def customer(self, account: UUID, name: str, generation: int = 1) -> None:
        """Announce an account's customer."""
        await self.accounts.apply(provisioned(account, name, generation).data)

    async def assign(self, user: UUID, account: UUID, second: float, revision: int = 0) -> bool:
        """Assign a user from a second on."""
        self._revision += 1
        assigned = UserAssigned(
            user_id=user, account_id=account, since=at(second), revision=revision or self._revision
        )
        return await self.accounts.assign(assigned)

    async def run(self, user: UUID, *seconds: float) -> None:
        """Record runs of a user that ended at these seconds."""
        entries = [Entry.of(tool_run(user, time=at(each)), RULES, NOW) for each in seconds]
        await Ledger(self.database).record(entries)

    async def claim(self, window: int = 10) -> int:
        """Claim all that is due, and return how many events were claimed."""
        claims = Claims(self.database, window=timedelta(seconds=window), dimensions=())
        return (await claims.claim(NOW)).events

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query."""
        return [tuple(row) for row in await self.database.run(lambda c: c.execute(text(query)))]

    async def reports(self) -> list[tuple[Any, ...]]:
        """Return customer and value of each report, by the time of its first run."""
        return await self.rows(
            "SELECT stripe_customer_id, value FROM usage_reports"
            " ORDER BY occurred_at, stripe_customer_id"
        )

    async def states(self) -> list[str]:
        """Return the events' states by the time of the run."""
        found = await self.rows("SELECT billing_state FROM usage_events ORDER BY occurred_at")
        return [state for (state,) in found]


@pytest.fixture
def payers(database: Database) -> Payers:
    """Return an empty ledger."""
    return Payers(database)


USER, OTHER, TEAM, FIRM = (UUID(int=number) for number in (1, 2, 101, 102))


async def test_account_has_one_report_for_the_runs_of_all_its_users(payers: Payers) -> None:
    """Stripe limits the number of reports, and an organisation has one customer."""
    await payers.customer(TEAM, "cus_team")
    for user in (USER, OTHER):
        await payers.assign(user, TEAM, 0)
    await payers.run(USER, 1, 2)
    await payers.run(OTHER, 3)

    await payers.claim()

    assert await payers.reports() == [("cus_team", 3)]
    assert await payers.rows("SELECT user_id FROM usage_reports") == [(TEAM,)]


async def test_move_in_mid_window_splits_the_window_at_its_time(payers: Payers) -> None:
    """A run that ended at the very time of the move is the new account's."""
    await payers.customer(USER, "cus_user")
    await payers.customer(TEAM, "cus_team")
    await payers.assign(USER, TEAM, 5)
    await payers.run(USER, 1, 4.999999, 5, 6, 7)

    await payers.claim()

    assert await payers.reports() == [("cus_user", 2), ("cus_team", 3)]


async def test_user_moves_twice_and_back_again(payers: Payers) -> None:
    """Assigned to their own id, users pay for themselves again."""
    for account, name in ((USER, "cus_user"), (TEAM, "cus_team"), (FIRM, "cus_firm")):
        await payers.customer(account, name)
    for account, second in ((USER, 30), (TEAM, 10), (FIRM, 20)):
        await payers.assign(USER, account, second)
    await payers.run(USER, *range(5, 40, 2))

    await payers.claim()

    found = await payers.rows(
        "SELECT stripe_customer_id, sum(value)::int FROM usage_reports GROUP BY 1 ORDER BY 1"
    )
    assert found == [("cus_firm", 5), ("cus_team", 5), ("cus_user", 8)]


async def test_usage_waits_for_the_customer_of_its_account_not_of_its_user(
    payers: Payers,
) -> None:
    """The user's own customer must not be charged for the team's runs."""
    await payers.customer(USER, "cus_user")
    await payers.assign(USER, TEAM, 0)
    await payers.run(USER, 1)

    assert await payers.claim() == 0
    assert await payers.states() == ["waiting"]
    await payers.customer(TEAM, "cus_team")
    assert await payers.claim() == 1
    assert await payers.reports() == [("cus_team", 1)]


async def test_assignment_back_in_time_moves_unclaimed_usage_alone(payers: Payers) -> None:
    """What is claimed stays with the account of its claim."""
    await payers.customer(USER, "cus_user")
    await payers.customer(TEAM, "cus_team")
    await payers.run(USER, 1)
    await payers.claim()
    await payers.run(USER, 2, 12)

    await payers.assign(USER, TEAM, 0)
    await payers.claim()

    assert await payers.reports() == [("cus_user", 1), ("cus_team", 1), ("cus_team", 1)]


async def test_due_usage_waits_again_for_an_account_without_a_customer(payers: Payers) -> None:
    """It was due for the user's own customer; the assignment came before the claim."""
    await payers.customer(USER, "cus_user")
    await payers.run(USER, 1, 2)
    await payers.assign(USER, TEAM, 1.5)

    claimed = await payers.claim()

    assert claimed == 1
    assert await payers.states() == ["claimed", "waiting"]
    assert (await payers.accounts.sweep(NOW)).released == 0
    await payers.customer(TEAM, "cus_team")
    assert await payers.claim() == 1
    assert await payers.reports() == [("cus_user", 1), ("cus_team", 1)]


async def test_waiting_usage_is_due_once_its_user_is_in_an_account_with_customer(
    payers: Payers,
) -> None:
    """The user has none; what ended before the assignment goes on waiting."""
    await payers.customer(TEAM, "cus_team")
    await payers.run(USER, 1, 2)

    await payers.assign(USER, TEAM, 1.5)

    assert await payers.states() == ["waiting", "due"]


async def test_of_assignments_from_one_time_the_highest_revision_holds(payers: Payers) -> None:
    """They may come in any order, and again."""
    await payers.customer(TEAM, "cus_team")
    await payers.customer(FIRM, "cus_firm")

    stored = [await payers.assign(USER, FIRM, 0, revision=7)]
    stored += [await payers.assign(USER, TEAM, 0, revision=each) for each in (5, 5)]
    await payers.run(USER, 1)
    await payers.claim()

    assert stored == [True, True, False]
    assert await payers.reports() == [("cus_firm", 1)]


async def test_refused_report_of_an_old_account_is_not_replaced_by_the_new_one(
    payers: Payers,
) -> None:
    """Its account's deleted customer has no successor; that of another account is none."""
    await payers.customer(USER, "cus_user")
    await payers.run(USER, 1)
    await payers.claim()
    reports = Reports(payers.database)
    [sent] = (await reports.lease(NOW)).reports
    gone = ReportAnswer(sent.report_id, "rejected", NOW, "no_such_customer", ever_unknown=False)
    await reports.answer([gone])

    await payers.customer(TEAM, "cus_team", generation=2)
    await payers.assign(USER, TEAM, 0)
    other = await payers.accounts.sweep(NOW)
    await payers.customer(USER, "cus_user_again", generation=2)
    own = await payers.accounts.sweep(NOW)

    assert (other.superseded, own.superseded) == (0, 1)
    assert await payers.reports() == [("cus_user", 1), ("cus_user_again", 1)]


@pytest.mark.parametrize("has_customer", [False, True], ids=["without a customer", "with one"])
async def test_first_usage_and_assignment_at_once_go_to_the_account(
    payers: Payers, *, has_customer: bool
) -> None:
    """In 200 rounds the two commit together, the customer too; sweeps leave nothing behind."""
    teams, users = [uuid4() for _ in range(200)], [uuid4() for _ in range(200)]
    for number, (team, user) in enumerate(zip(teams, users, strict=True)):
        if has_customer:
            await payers.customer(user, f"cus_user_{number}")
        await asyncio.gather(
            payers.run(user, 1),
            payers.assign(user, team, 0, revision=1),
            payers.customer(team, f"cus_team_{number}"),
        )

    await payers.claim()
    await payers.accounts.sweep(NOW)
    await payers.claim()

    assert await payers.states() == ["claimed"] * 200
    found = await payers.rows("SELECT stripe_customer_id FROM usage_reports")
    assert {name for (name,) in found} == {f"cus_team_{number}" for number in range(200)}


async def test_claim_and_assignment_at_once_bill_each_run_once(payers: Payers) -> None:
    """In 200 rounds; whichever account a run is claimed for, it is claimed for no other."""
    await payers.customer(TEAM, "cus_team")
    users = [uuid4() for _ in range(200)]
    for number, user in enumerate(users):
        await payers.customer(user, f"cus_{number}")
        await payers.run(user, 1, 2)

        await asyncio.gather(
            payers.claim(window=0), payers.assign(user, TEAM, 1.5, revision=1), payers.claim()
        )
    await payers.claim()

    assert await payers.states() == ["claimed"] * 400
    assert await sums(payers) == [(400,)]
    assert await payers.rows(ASTRAY) == []


async def sums(payers: Payers) -> Sequence[tuple[Any, ...]]:
    """Return what all reports add up to."""
    return await payers.rows("SELECT sum(value)::int FROM usage_reports")


# Claims with events of another number than their report says, or paid by a third account.
ASTRAY = f"""
SELECT r.report_id FROM usage_reports r JOIN usage_events e USING (claim_id)
 GROUP BY r.report_id
HAVING count(*) <> r.value OR bool_or(r.user_id NOT IN (e.user_id, '{TEAM}'))
"""  # noqa: S608 - of this test alone


async def test_assignment_is_looked_at_until_open_batches_have_ended(payers: Payers) -> None:
    """A batch that saw no assignment may commit long after."""
    await payers.customer(TEAM, "cus_team")
    await payers.accounts.sweep(NOW)
    await payers.accounts.sweep(NOW)

    async with payers.database.engine.begin() as batch:
        await batch.execute(WAITING, {"user_id": USER, "at": at(1)})
        await payers.assign(USER, TEAM, 0)
        swept = [(await payers.accounts.sweep(NOW)).released for _ in range(3)]
        while_open = await payers.rows(RELEASED)
    swept += [(await payers.accounts.sweep(NOW)).released for _ in range(2)]

    assert swept == [0, 0, 0, 1, 0]
    assert (while_open, await payers.rows(RELEASED)) == ([(False,)], [(True,)])


async def test_first_customer_of_an_account_has_its_users_looked_at_again(payers: Payers) -> None:
    """A batch that saw the assignment, and not the customer, may commit after it."""
    await payers.assign(USER, TEAM, 0)
    for _ in range(2):
        await payers.accounts.sweep(NOW)
    before = await payers.rows(RELEASED)

    async with payers.database.engine.begin() as batch:
        await batch.execute(WAITING, {"user_id": USER, "at": at(1)})
        await payers.customer(TEAM, "cus_team")
    swept = (await payers.accounts.sweep(NOW)).released

    assert (before, swept) == ([(True,)], 1)


async def test_what_waits_for_another_account_keeps_no_assignment_unreleased(
    payers: Payers,
) -> None:
    """Else each sweep would look at it for 35 days."""
    await payers.customer(USER, "cus_user")
    await payers.run(USER, 1, 12)
    await payers.assign(USER, TEAM, 10)
    await payers.claim()
    for _ in range(2):
        await payers.accounts.sweep(NOW)

    assert await payers.states() == ["claimed", "waiting"]
    assert await payers.rows(RELEASED) == [(True,)]
    assert await payers.rows("SELECT released FROM billing_accounts") == [(True,)]


RELEASED = "SELECT released FROM account_assignments"


async def test_usage_of_many_users_is_released_in_portions(payers: Payers) -> None:
    """An organisation's customer may come after a million runs."""
    users = [uuid4() for _ in range(5)]
    for user in users:
        await payers.assign(user, TEAM, 0)
        await payers.run(user, *range(7))

    await payers.accounts.apply(provisioned(TEAM, "cus_team").data, most=10)
    swept = [await payers.accounts.sweep(NOW, most=10) for _ in range(4)]

    assert [each.released for each in swept] == [10, 10, 5, 0]
    assert [each.more for each in swept] == [True, True, False, False]


async def test_what_an_assignment_back_in_time_left_is_listed(payers: Payers) -> None:
    """An operator sees what finance may have to settle."""
    await payers.customer(USER, "cus_user")
    await payers.run(USER, 1, 2, 12)
    await payers.claim()
    await payers.assign(USER, FIRM, 2)
    await payers.assign(USER, TEAM, 2)
    await payers.assign(USER, USER, 40)

    reader = LedgerReader(payers.database)
    lines = list(explain_payers(USER, await reader.assignments(USER)))

    after, back = (f"{MINUTE + timedelta(seconds=each):%Y-%m-%dT%H:%M:%S}" for each in (2, 40))
    assert [line.partition(", known")[0] for line in lines] == [
        f"until {after}Z: the user's own account",
        f"from {after}Z: account {FIRM} (revision 1",
        f"from {after}Z: account {TEAM} (revision 2",
        "  it has no Stripe customer",
        "  2 runs after that were claimed before, and stay the user's own",
        f"from {back}Z: the user's own account (revision 3",
    ]
    assert lines[1].endswith("overruled by revision 2")


async def test_runs_of_all_users_accounts_are_listed(payers: Payers) -> None:
    """A user who never moved, one who waits, and one who was moved between two teams afterwards."""
    await payers.customer(TEAM, "cus_team")
    await payers.assign(USER, TEAM, 0)
    await payers.assign(OTHER, TEAM, 0)
    await payers.run(USER, 1, 12, 30)
    await payers.run(OTHER, 1, 12)
    await payers.claim()
    await payers.assign(USER, FIRM, 10)
    await payers.run(USER, 31, 50)
    await payers.assign(USER, TEAM, 40)

    printed = [await printed_by(payers, user) for user in (USER, OTHER, FIRM)]

    assert printed == [
        [
            "until the user's own account",
            "  it has no Stripe customer",
            f"from account {TEAM}",
            f"from account {FIRM}",
            "  it has no Stripe customer; runs that wait for one: 1",
            f"  2 runs after that were claimed before, and stay account {TEAM}'s",
            f"from account {TEAM}",
        ],
        [
            "until the user's own account",
            "  it has no Stripe customer",
            f"from account {TEAM}",
        ],
        ["always: the user's own account", "  it has no Stripe customer"],
    ]


async def printed_by(payers: Payers, user: UUID) -> list[str]:
    """Return the lines of `payers`, without times and revisions."""
    assignments = await LedgerReader(payers.database).assignments(user)
    lines = explain_payers(user, assignments)
    return [re.sub(r" [0-9-]{10}T[0-9:.]+Z:?| \(.*|:$", "", each) for each in lines]


async def test_explanation_of_a_run_says_who_pays_and_what_was_claimed_before(
    payers: Payers,
) -> None:
    """Each run by itself."""
    await payers.customer(USER, "cus_user")
    await payers.run(USER, 1)
    await payers.claim()
    await payers.assign(USER, TEAM, 0)
    await payers.run(USER, 2)
    found = await payers.rows("SELECT event_id FROM usage_events ORDER BY occurred_at")

    reader = LedgerReader(payers.database)
    printed = []
    for (event_id,) in found:
        history = await reader.history(event_id, NOW, timedelta(hours=1), None)
        assert history is not None
        printed.append(list(explain(history)))

    paid = f"paid by account {TEAM}, which its user was assigned to"
    assert all(paid in lines for lines in printed)
    claimed = [[line for line in lines if "claimed for account" in line] for lines in printed]
    assert [len(lines) for lines in claimed] == [1, 0]
    assert str(USER) in claimed[0][0]
