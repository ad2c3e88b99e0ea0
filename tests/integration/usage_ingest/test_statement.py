"""The statement of a customer or a user: recorded, reported and counted, and how these meet."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import pytest

from integration.usage_ingest.command import command
from integration.usage_ingest.priced import USER, WITH_NEW, PricedLedger
from integration.usage_ingest.subscribed import subscribe
from integration.usage_ingest.sums import report
from nexus_contracts import CountedHour, UsageCounted, UserAssigned
from nexus_database import Database
from support.events import provisioned, tool_run
from support.usage_ledger import UsageLedger
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules, ToolRun
from usage_ingest.storage.accounts import Accounts
from usage_ingest.storage.claims import Claims
from usage_ingest.storage.counted import CountedSums
from usage_ingest.storage.ledger import Ledger
from usage_ingest.storage.reports import ReportAnswer, Reports

NOW: Final = datetime.now(UTC)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
START: Final = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - 3 * DAY
NOON: Final = START + 12 * HOUR
METER: Final = "tool_calls"
RULES: Final = BillingRules(METER, None, frozenset({"succeeded"}))
SPAN: Final = ("--from", START.isoformat(), "--to", (START + 2 * DAY).isoformat())

Facts = Sequence[Mapping[str, Any]]


async def record(database: Database, *runs: ToolRun, claim: bool = True) -> None:
    """Record runs; claim each by itself."""
    await Ledger(database).record([Entry.of(run, RULES, NOW) for run in runs])
    if claim:
        await Claims(database, window=timedelta(0), dimensions=()).claim(NOW)


async def answer(database: Database, *states: str) -> None:
    """Forward what is pending, and answer the reports in the order of their times."""
    reports = Reports(database)
    taken = (await reports.lease(NOW)).reports
    await reports.settle_lease(NOW, forwarded=[each.report_id for each in taken], failed=[])
    ordered = sorted(taken, key=lambda each: each.occurred_at)
    await reports.answer(
        [
            ReportAnswer(
                each.report_id,
                state,
                NOON + 13 * HOUR,
                "no_meter" if state.startswith("rejected") else None,
                ever_unknown=False,
            )
            for each, state in zip(ordered, states, strict=False)
        ]
    )


async def count(database: Database, customer: str, *hours: tuple[datetime, float]) -> None:
    """Let Stripe's sums of the days be read, two days later."""
    for day in (START, START + DAY):
        reading = UsageCounted(
            stripe_customer_id=customer,
            meter=METER,
            start=day,
            end=day + DAY,
            hours=[
                CountedHour(start=at, value=value) for at, value in hours if day <= at < day + DAY
            ],
            as_of=START + 2 * DAY + 12 * HOUR,
        )
        await CountedSums(database, lag=HOUR).apply(reading)


async def statement(
    database: Database, of: object, *arguments: str, span: Sequence[str] = SPAN
) -> tuple[int, Facts]:
    """Return the command's exit code and its lines of JSON."""
    code, shown, errors = await command(database, "statement", str(of), *span, "--json", *arguments)
    assert errors == ""
    return code, [json.loads(line) for line in shown.splitlines()]


def sums(found: Facts, part: str, *names: str) -> Mapping[Any, float]:
    """Return the values of a part's lines, by the fields ``names``."""
    values: Counter[Any] = Counter()
    for each in found:
        if each["part"] == part:
            values[tuple(each[name] for name in names)] += each["value"]
    return dict(values)


def at(hours: float, user: UUID, tool: str = "read", **fields: Any) -> ToolRun:
    """Return a run some hours after ``START``."""
    return tool_run(user, time=START + hours * HOUR, server_id="files", tool_name=tool, **fields)


async def team(database: Database) -> tuple[UUID, UUID, UUID]:
    """Return an organisation with a customer, and two of its members."""
    account, ada, bob = uuid4(), uuid4(), uuid4()
    accounts = Accounts(database)
    await accounts.apply(provisioned(account, "cus_team").data)
    for user in (ada, bob):
        since = START - 10 * DAY
        await accounts.assign(
            UserAssigned(user_id=user, account_id=account, since=since, revision=1)
        )
    return account, ada, bob


async def used(database: Database) -> tuple[UUID, UUID, UUID]:
    """Let a team use two tools on two days, with every fate that usage can have."""
    account, ada, bob = await team(database)
    await record(
        database,
        at(12, ada),
        at(12.1, bob),
        at(12.2, ada, "write"),
        at(36, bob),
        at(37, bob),
        at(13, ada, status="failed"),
    )
    await answer(database, "reported", "reported", "rejected", "reported")
    await record(database, at(40, ada), claim=False)
    await UsageLedger(database).runs(
        ada, at=START + 41 * HOUR, state="expired", readings={METER: 1}
    )
    return account, ada, bob


async def test_what_a_customer_used_meets_in_reports_and_at_stripe(database: Database) -> None:
    """Each run of all its users is found once, by its tool and by what became of it."""
    await used(database)
    await count(database, "cus_team", (NOON, 2.0), (NOON + DAY, 1.0))

    code, found = await statement(database, "cus_team")

    first, second = START.isoformat(), (START + DAY).isoformat()
    assert code == 0
    assert sums(found, "recorded", "start", "tool", "state") == {
        (first, "read", "reported"): 2,
        (first, "write", "rejected"): 1,
        (first, "read", "not_billable"): 0,
        (second, "read", "reported"): 1,
        (second, "read", "forwarded"): 1,
        (second, "read", "due"): 1,
        (second, "read", "expired"): 1,
    }
    assert sums(found, "claimed", "start", "state") == {
        (first, "readings"): 3,
        (second, "readings"): 2,
    }
    assert sums(found, "reported", "start", "state") == {
        (first, "reported"): 2,
        (first, "rejected"): 1,
        (second, "reported"): 1,
        (second, "forwarded"): 1,
    }
    assert sums(found, "counted", "start", "customer", "state") == {
        (first, "cus_team", "counted"): 2,
        (second, "cus_team", "counted"): 1,
    }
    assert found[-1]["sums"] == [
        f"{METER}: recorded 7 = reported 3 + rejected 1 + due 1 + expired 1 + forwarded 1",
        f"{METER}: in reports 5 = readings 5 = rejected 1 + reported 3 + forwarded 1",
        f"{METER}: counted by Stripe 3 = reported 3",
    ]


async def test_a_difference_is_named_with_its_reports_and_their_events(database: Database) -> None:
    """What Stripe lost: the statement fails once that is known for too long."""
    _, _, bob = await used(database)
    lost = tool_run(bob, time=START + 20 * HOUR)
    await record(database, lost)
    await answer(database, "reported")
    await count(database, "cus_team", (NOON, 2.0), (NOON + DAY, 1.0))

    late, found = await statement(database, "cus_team", "--older-than", "60")
    early, _ = await statement(database, "cus_team", "--older-than", "8640000")
    _, written, _ = await command(database, "statement", "cus_team", *SPAN, "--csv")
    _, table, _ = await command(database, "statement", "cus_team", *SPAN)

    [difference] = [each for each in found if each["part"] == "difference"]
    [its] = difference["reports"]
    assert (late, early, found[-1]["late"]) == (1, 0, True)
    assert (difference["kind"], difference["by"], its["could_explain"]) == ("lower", -1, True)
    assert difference["events"] == {its["identifier"]: [str(lost.id)]}
    assert f"{METER}: counted by Stripe 3 = reported 4 - differences 1" in found[-1]["sums"]
    [row] = [row for row in csv.DictReader(io.StringIO(written)) if row["part"] == "difference"]
    assert (row["value"], row["reports"], row["events"]) == ("-1", its["identifier"], str(lost.id))
    assert its["identifier"] in table
    assert str(lost.id) in table


async def test_a_settled_difference_is_listed_and_fails_nothing(database: Database) -> None:
    """The sums meet by it, as before."""
    _, _, bob = await used(database)
    lost = tool_run(bob, time=START + 20 * HOUR)
    await record(database, lost)
    await answer(database, "reported")
    await count(database, "cus_team", (NOON, 2.0), (NOON + DAY, 1.0))
    hour = (START + 20 * HOUR).isoformat()
    assert (await command(database, "settle", "cus_team", METER, hour, "--note", "=CN-12"))[0] == 0

    late, found = await statement(database, "cus_team", "--older-than", "60")
    _, written, _ = await command(database, "statement", "cus_team", *SPAN, "--csv")
    _, table, _ = await command(database, "statement", "cus_team", *SPAN)

    [difference] = [each for each in found if each["part"] == "difference"]
    assert (late, difference["settlement"]) == (0, "=CN-12")
    assert f"{METER}: counted by Stripe 3 = reported 4 - differences 1" in found[-1]["sums"]
    [row] = [row for row in csv.DictReader(io.StringIO(written)) if row["part"] == "difference"]
    assert row["settlement"] == "'=CN-12"
    assert "lower, settled" in table


async def test_the_forms_have_the_same_sums(database: Database) -> None:
    """CSV has each line of JSON as a row; the table has a row for a day and tool."""
    await used(database)
    await count(database, "cus_team", (NOON, 2.0), (NOON + DAY, 1.0))

    _, found = await statement(database, "cus_team")
    _, written, _ = await command(database, "statement", "cus_team", *SPAN, "--csv")
    _, table, _ = await command(database, "statement", "cus_team", *SPAN)

    rows = [
        (
            row["part"],
            row["tool"],
            row["meter"],
            row["state"],
            int(row["number"]),
            int(row["value"]),
        )
        for row in csv.DictReader(io.StringIO(written))
    ]
    assert rows == [
        (
            each["part"],
            each["tool"] or "",
            each["meter"],
            each["state"],
            each["number"],
            each["value"],
        )
        for each in found[1:-1]
    ]
    cells = [line.split() for line in table.splitlines()]
    day = f"{START + DAY:%Y-%m-%d}"
    [tool] = [line for line in cells if line[:3] == [day, "files", "read"]]
    assert tool[3:6] == [METER, "4", "4"]
    [meter] = [line for line in cells if line[:2] == [day, "cus_team"]]
    assert meter[2:] == [METER, "2", "forwarded", "1", "+", "reported", "1", "1"]
    assert set(found[-1]["sums"]) <= set(table.splitlines())


async def test_a_tools_name_is_no_formula_in_a_spreadsheet(database: Database) -> None:
    """Publishers choose the names of tools, and finance opens the file."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await record(database, at(12, user, "=1+1"))

    _, written, _ = await command(database, "statement", "cus_1", *SPAN, "--csv")

    tools = {row["tool"] for row in csv.DictReader(io.StringIO(written))}
    assert tools == {"'=1+1", ""}


async def test_a_user_sees_their_own_runs_and_who_pays(database: Database) -> None:
    """Only their runs are recorded; what is reported and counted is of the whole account."""
    account, _, bob = await used(database)
    await record(database, at(24 - 0.5, bob), at(24 - 0.4, bob, status="failed"))
    await count(database, "cus_team", (NOON, 2.0), (NOON + DAY, 1.0))

    code, found = await statement(database, bob)

    team_pays = str(account)
    assert code == 0
    assert found[0]["shared_accounts"] == [team_pays]
    assert sums(found, "recorded", "tool", "state", "account") == {
        ("read", "reported", team_pays): 2,
        ("read", "forwarded", team_pays): 1,
        ("read", "pending", team_pays): 1,
        ("read", "not_billable", team_pays): 0,
    }
    assert sums(found, "claimed", "state") == {}
    assert sums(found, "counted", "state") == {("counted",): 3}


async def test_routes_markups_late_prices_and_first_uses_are_in_the_sums(
    database: Database,
) -> None:
    """What a plan makes of readings is said apart; nothing of it is unexplained."""
    ledger = PricedLedger(database)
    await ledger.customer()
    await ledger.subscribe("team")
    await ledger.record(
        ledger.tokens("known", time=NOON, tool_name="ask"),
        ledger.tokens("new", time=NOON + timedelta(seconds=1), tool_name="ask"),
    )
    await ledger.claims().claim(NOW)
    await ledger.price_late()
    await ledger.claims(WITH_NEW).claim_late(NOW)
    await answer(database, "reported", "reported", "reported", "reported")

    code, found = await statement(database, "cus_1")
    _, own = await statement(database, USER)

    assert code == 0
    recorded = sums(found, "recorded", "tool", "meter")
    assert recorded["ask", "tools"] == 1
    assert recorded["ask", "runs"] == 2
    reported = sums(found, "reported", "meter")
    claimed = sums(found, "claimed", "meter", "state")
    assert claimed["micros", "by_plan"] == reported["micros",] > 0
    assert claimed["tools", "readings"] == reported["tools",] == 1
    assert "unexplained" not in {state for _, state in claimed}
    assert recorded["ask", "@tokens"] == reported["micros",]  # this plan has no markup
    assert own[1:-1] == found[1:-1]


async def test_reports_without_their_runs_are_unexplained(database: Database) -> None:
    """A ledger that was restored has adopted reports whose runs it lacks."""
    account = uuid4()
    await Accounts(database).apply(provisioned(account, "cus_1").data)
    await report(database, account, "cus_1", 5, at=NOON)

    code, found = await statement(database, "cus_1", "--older-than", "60")
    early, _ = await statement(database, "cus_1", "--older-than", "8640000")

    assert (code, early) == (1, 0)
    assert sums(found, "claimed", "state") == {("readings",): 0, ("unexplained",): 5}


async def test_what_stripe_may_not_show_yet_or_may_have_is_no_difference(
    database: Database,
) -> None:
    """A lost answer leaves a report without one; a later answer awaits the next reading."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await record(database, at(12, user), at(12.5, user), at(15, user))
    await answer(database, "reported")
    await count(database, "cus_1", (NOON, 2.0))
    await record(database, at(36, user))

    _, found = await statement(database, "cus_1")
    await answer(database, "reported")
    _, later = await statement(database, "cus_1")

    assert sums(found, "counted", "state") == {("counted",): 2, ("unanswered",): 1}
    assert sums(later, "counted", "state")["not_shown",] == -1


async def test_a_report_that_changed_after_its_sum_was_read_is_unexplained_until_the_next(
    database: Database,
) -> None:
    """Stripe had counted it, and says now that it does not."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await record(database, at(12, user))
    await answer(database, "reported")
    await count(database, "cus_1", (NOON, 1.0))
    await UsageLedger(database).execute(
        "UPDATE usage_reports SET state = 'rejected_later', reason = 'no_meter'"
    )

    code, found = await statement(database, "cus_1", "--older-than", "60")

    assert code == 1
    assert sums(found, "counted", "state") == {("counted",): 1, ("unexplained",): 1}


async def test_only_the_hours_of_the_span_are_added_up(database: Database) -> None:
    """The end is not in it; a day that is cut is a part of a day."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    hours = (10.9, 11, 13.99, 14)
    for hour in hours:
        await record(database, at(hour, user))
    await answer(database, *("reported" for _ in hours))
    for hour in hours:
        await record(database, at(hour, user), claim=False)
    await count(database, "cus_1", *((START + n * HOUR, 1.0) for n in (10, 11, 13, 14)))
    span = ("--from", (START + 11 * HOUR).isoformat(), "--to", (START + 14 * HOUR).isoformat())

    _, found = await statement(database, "cus_1", span=span)

    begin = (START + 11 * HOUR).isoformat()
    assert sums(found, "recorded", "start", "state") == {(begin, "reported"): 2, (begin, "due"): 2}
    assert sums(found, "reported", "start") == {(begin,): 2}
    assert sums(found, "counted", "start", "state") == {(begin, "counted"): 2}


async def test_a_month_is_that_of_utc_and_stripes_periods_are_named(database: Database) -> None:
    """Finance compares with an invoice whose period began at another moment."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await UsageLedger(database).execute(
        "INSERT INTO subscription_periods VALUES"
        " ('sub_1', '2026-09-01T00:00:00Z', '2026-10-01T00:00:00Z', '{}'),"
        " ('sub_1', '2026-10-10T00:00:00Z', '2026-10-10T00:00:00Z', '{}'),"
        " ('sub_1', '2026-10-14T08:30:00Z', '2026-11-14T08:30:00Z', '{}'),"
        " ('sub_1', '2026-11-01T00:00:00Z', '2026-12-01T00:00:00Z', '{}')"
    )
    begin = datetime(2026, 12, 1, tzinfo=UTC)
    await subscribe(database, user, period_start=begin, period_end=begin + 31 * DAY)

    _, found = await statement(database, "cus_1", span=("--period", "2026-10"))

    heading = found[0]
    assert (heading["from"], heading["to"]) == (
        "2026-10-01T00:00:00+00:00",
        "2026-11-01T00:00:00+00:00",
    )
    periods = [each["from"] for each in heading["stripe_periods"]]
    assert periods == ["2026-10-14T08:30:00+00:00"]


async def test_without_a_span_it_is_the_present_month(database: Database) -> None:
    """To its end: what is used later in the month is asked for likewise."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)

    _, found = await statement(database, user, span=())

    begin = datetime.fromisoformat(found[0]["from"])
    end = datetime.fromisoformat(found[0]["to"])
    assert begin == begin.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert begin <= datetime.now(UTC) < end
    assert (end - DAY).month == begin.month != end.month
    assert end.day == 1


async def test_what_is_on_no_invoice_is_said(database: Database) -> None:
    """Accepted by Stripe, after the invoice of its period was final."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await record(database, at(12, user))
    await answer(database, "reported")
    await UsageLedger(database).execute(
        "INSERT INTO report_placements SELECT report_id, user_id, meter, value, occurred_at,"
        " answered_at, 'after_finalisation' FROM usage_reports"
    )

    _, found = await statement(database, "cus_1")

    assert sums(found, "invoice", "state") == {("after_finalisation",): 1}

    await UsageLedger(database).execute(
        "UPDATE usage_reports SET state = 'rejected_later', reason = 'no_meter'"
    )
    _, later = await statement(database, "cus_1")
    assert sums(later, "invoice", "state") == {}


async def test_a_replaced_report_and_a_closed_difference_leave_no_trace_in_the_sums(
    database: Database,
) -> None:
    """Runs are what the standing report of their claim is; a mended hour is as expected."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await record(database, at(12, user))
    await answer(database, "reported")
    await UsageLedger(database).execute(
        "INSERT INTO usage_reports (report_id, identifier, claim_id, user_id, stripe_customer_id,"
        " generation, meter, value, dimensions, occurred_at, event_count, state, reason)"
        " SELECT gen_random_uuid(), 'replaced', claim_id, user_id, 'cus_0', 0, meter, value,"
        " dimensions, occurred_at, event_count, 'superseded', 'no_such_customer'"
        " FROM usage_reports"
    )
    await count(database, "cus_1")
    await UsageLedger(database).execute("UPDATE differences SET closed_at = now()")

    _, found = await statement(database, user)

    assert sums(found, "recorded", "state") == {("reported",): 1}
    assert sums(found, "counted", "state") == {("counted",): 0, ("not_shown",): -1}


async def test_a_users_runs_that_no_meter_counts_are_said(database: Database) -> None:
    """Their claim has no report."""
    user = uuid4()
    await UsageLedger(database).runs(user, 3, at=NOON, readings={"@free": 1})

    _, found = await statement(database, user)

    assert [(each["state"], each["number"]) for each in found[1:-1]] == [("no_meter", 3)]


async def test_a_customer_of_nobody_has_what_stripe_counted(database: Database) -> None:
    """Usage that the ledger knows nothing of is a difference, not an empty statement."""
    await count(database, "cus_foreign", (NOON, 2.0))

    code, found = await statement(database, "cus_foreign", "--older-than", "60")

    assert code == 1
    assert sums(found, "counted", "state") == {("counted",): 2, ("differences",): 2}
    _, table, _ = await command(database, "statement", "cus_foreign", *SPAN)
    assert "the ledger has no account with this customer" in table


async def test_an_invoice_that_is_not_known_yet_is_not_called_none(database: Database) -> None:
    """The subscriptions of a new customer are read within a day."""
    user = uuid4()
    await Accounts(database).apply(provisioned(user, "cus_1").data)
    await record(database, at(12, user))
    await answer(database, "reported")
    await UsageLedger(database).execute(
        "INSERT INTO report_placements SELECT report_id, user_id, meter, value, occurred_at,"
        " answered_at, 'unknown' FROM usage_reports"
    )

    _, table, _ = await command(database, "statement", "cus_1", *SPAN)

    assert f"{METER}: on which invoice is not known yet: 1" in table
    assert "on no invoice" not in table


async def test_an_id_of_nobody_is_an_error_and_no_empty_statement(database: Database) -> None:
    """A mistyped id must not look like a customer without a difference."""
    account, ada, _ = await team(database)

    for of, said in (
        ("cus_nobody", "the ledger has no account with the customer cus_nobody"),
        (str(uuid4()), "the ledger has no user"),
        (str(account), "an account's is that of its customer, cus_team"),
    ):
        code, shown, errors = await command(database, "statement", of, *SPAN, "--csv")
        assert (code, shown) == (1, "")
        assert said in errors
    code, _ = await statement(database, ada)
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cus_1", "--period", "2026-13"), "a month is wanted"),
        (("cus_1", "--period", "9999-12"), "a month is wanted"),
        (("cus_1", "--from", "2026-11-01T00:00:60Z"), "a time with its offset is wanted"),
        (("cus_1", "--period", "2126-11"), "2126-11-01T00:00:00Z has not come yet"),
        (("cus_1", "--from", "2026-11-02", "--to", "2026-11-01"), "--to must be after --from"),
        (("cus_1", "--from", "2026-11-01", "--to", "2026-11-01"), "--to must be after --from"),
        (("cus_1", "--from", "2026-11-01T10:30:00Z"), "a whole hour of UTC is wanted"),
        (("cus_1", "--to", "2026-11-01"), "--to needs --from"),
        (("cus_1", "--period", "2026-11", "--from", "2026-11-01"), "either --period or --from"),
        (("ada",), "the UUID of a user, or a customer's id"),
    ],
)
async def test_a_span_that_makes_no_sense_is_refused(
    database: Database, arguments: Sequence[str], said: str
) -> None:
    """Wrong usage, before anything is read; the text names what is wrong."""
    code, shown, errors = await command(database, "statement", *arguments)

    assert (code, shown) == (2, "")
    assert said in errors
