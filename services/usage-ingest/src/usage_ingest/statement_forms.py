"""How a statement is written: tables for people, lines of JSON, comma-separated values."""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

from nexus_service.console import Row, Tone, rfc_3339, show_json, show_line, show_table
from usage_ingest.inference import suspects
from usage_ingest.reconcile import facts, kind_of
from usage_ingest.reconciliation import Number
from usage_ingest.statement import Line, Part, Scope, Sums, listed, shown
from usage_ingest.storage.differences import OpenDifference

Events = Mapping[str, Sequence[UUID]]
"""Some events of each report, by its identifier."""

MAX_SHOWN: Final = 1000
"""Rows of each table; --json and --csv have all."""

MAX_NAMED: Final = 3
"""Reports of a difference in its row of the table, those first that could be all of it."""

FORMULA_SIGNS: Final = "=+-@"

HEADING: Final = (
    "recorded: by day, server, tool and reading, and what became of its reports; reported and"
    " counted: by day and meter, since reports know no tool. Both meet in the sums of each meter."
)

MEANINGS: Final[Mapping[str, str]] = {
    "no_meter": "the account's plan charges them on no meter",
    "claimed": "by the plan they are in several reports, which differ in their states",
    "rejected": "refused by Stripe; their dead letters say why",
    "rejected_later": "accepted by Stripe, which then said that it does not count them",
    "by_plan": "what plans made of routes, with their markup",
    "shadow": "never sent (REPORTING_LIVE_FROM): the way before this one reported them",
    "differences": "Stripe's sums are not what they should be; listed above, with their reports",
    "not_shown": "accepted since Stripe's sums were read, or Stripe does not show it yet",
    "unanswered": "counted, as it seems, of reports that Stripe has not answered",
    "unexplained": "the sums do not meet, for no reason that the ledger knows",
    "in_grace": "accepted after its period, before the invoice was final: it is on it",
    "unknown": "customer-provisioner has not read the account's subscriptions yet",
    "not_subscribed": "accepted, but the customer has no subscription with that meter",
    "not_charged": "accepted, and the account's plan has no price for that meter",
    "after_finalisation": "accepted after the invoice of its period was final",
    "ended_early": "the subscription was canceled at once: billed only if that was asked for",
}


class StatementForm(Protocol):
    """How a statement is written: its heading, its sums in order, its differences, its end."""

    def begin(self, scope: Scope) -> None:
        """Write whose statement it is."""

    def line(self, line: Line) -> None:
        """Write a sum of a day."""

    def difference(self, each: OpenDifference, events: Events, *, late: bool) -> None:
        """Write a difference of an hour."""

    def end(self, sums: Sums, *, late: bool) -> None:
        """Write how the sums meet."""


class AsJson:
    """A line for what it is a statement of, for each sum, for each difference, and for its end."""

    def begin(self, scope: Scope) -> None:
        """Write whose statement it is."""
        show_json({"part": "statement"} | _heading(scope))

    def line(self, line: Line) -> None:
        """Write a sum of a day."""
        show_json(_fields(line))

    def difference(self, each: OpenDifference, events: Events, *, late: bool) -> None:
        """Write a difference, as `reconcile` does, with some events of each report."""
        named = {
            identifier: [str(event) for event in of_report]
            for identifier, of_report in events.items()
        }
        show_json({"part": "difference"} | facts(each) | {"events": named, "late": late})

    def end(self, sums: Sums, *, late: bool) -> None:
        """Write how the sums meet."""
        show_json({"part": "end", "sums": list(sums.sentences()), "late": late})


class AsCsv:
    """All sums and differences as rows of one table, for a spreadsheet."""

    COLUMNS: Final = (
        "part",
        "start",
        "account",
        "customer",
        "server",
        "tool",
        "meter",
        "state",
        "number",
        "value",
        "reports",
        "events",
        "settlement",
    )

    def __init__(self) -> None:
        self._rows = csv.DictWriter(sys.stdout, self.COLUMNS, restval="")

    def begin(self, scope: Scope) -> None:  # noqa: ARG002 - a table has one form of row
        """Write the titles."""
        self._rows.writeheader()

    def line(self, line: Line) -> None:
        """Write a sum of a day."""
        texts = {"server": line.server, "tool": line.tool, "meter": line.meter}
        cells = {name: _as_text(each) for name, each in texts.items()}
        self._rows.writerow(_fields(line) | cells | {"start": rfc_3339(line.day)})

    def difference(self, each: OpenDifference, events: Events, *, late: bool) -> None:  # noqa: ARG002
        """Write a difference of an hour."""
        self._rows.writerow(
            {
                "part": "difference",
                "start": rfc_3339(each.difference.hour),
                "customer": each.customer,
                "meter": _as_text(each.meter),
                "state": each.difference.named.value,
                "number": len(each.reports),
                "value": each.difference.by,
                "reports": " ".join(named.identifier for named in each.reports),
                "events": " ".join(str(event) for some in events.values() for event in some),
                "settlement": _as_text(each.settlement),
            }
        )

    def end(self, sums: Sums, *, late: bool) -> None:
        """Write nothing: a spreadsheet adds up."""


States = dict[str, Number]


class AsTables:
    """A table of what was recorded, one of reports and Stripe's sums, one of differences."""

    RECORDED: Final = ("day", "server", "tool", "reading", "runs", "recorded", "became", "payer")
    METERS: Final = ("day", "customer", "meter", "in reports", "became", "counted", "beside")
    DIFFERENCES: Final = ("hour", "customer", "meter", "kind", "by", "age", "reports", "of events")

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._recorded: dict[tuple[str, ...], tuple[list[int], States]] = {}
        self._meters: dict[tuple[str, ...], tuple[States, States]] = {}
        self._differences: list[Row] = []
        self._left_out = False

    def begin(self, scope: Scope) -> None:
        """Show whose statement it is, who pays, and of when Stripe's sums are."""
        whose = f"user {scope.user}" if scope.user else f"customer {next(iter(scope.customers))}"
        show_line(f"{whose}: {rfc_3339(scope.start)} to {rfc_3339(scope.end)}, by days of UTC")
        show_line(HEADING)
        for line in _notes(scope):
            show_line(line, Tone.NOTE)

    def line(self, line: Line) -> None:
        """Keep a sum for its row."""
        day = f"{line.day:%Y-%m-%d}"
        if line.part is Part.RECORDED:
            payer = "" if line.account is None else str(line.account)
            place = (day, line.server or "", line.tool or "", line.meter, payer)
            if self._has_room(self._recorded, place):
                numbers, states = self._recorded.setdefault(place, ([0], {}))
                numbers[0] += line.number
                states[line.state] = states.get(line.state, 0) + (line.value if line.meter else 0)
        elif line.part in {Part.REPORTED, Part.COUNTED}:
            of = (day, line.customer or "", line.meter)
            if self._has_room(self._meters, of):
                parts = self._meters.setdefault(of, ({}, {}))
                states = parts[0 if line.part is Part.REPORTED else 1]
                states[line.state] = states.get(line.state, 0) + line.value

    def difference(self, each: OpenDifference, events: Events, *, late: bool) -> None:
        """Keep a difference for its row."""
        if len(self._differences) == MAX_SHOWN:
            self._left_out = True
            return
        named = list(_named(each))
        first = [str(events[identifier][0]) for identifier in named if identifier in events]
        cells = (
            rfc_3339(each.difference.hour),
            each.customer,
            each.meter,
            kind_of(each),
            shown(each.difference.by),
            self._now - each.first_seen,
            _some(named, len(each.reports)),
            _some(first, len(first)),
        )
        self._differences.append(Row(cells, Tone.BAD if late else Tone.NOTE))

    def end(self, sums: Sums, *, late: bool) -> None:
        """Show the tables, and how the sums meet."""
        show_table(self.RECORDED, list(self._recorded_rows()))
        show_table(self.METERS, list(self._meter_rows()))
        if self._differences:
            show_table(self.DIFFERENCES, self._differences)
        if self._left_out:
            show_line(f"only {MAX_SHOWN} rows of a table are shown; --csv has all", Tone.NOTE)
        for line in sums.sentences():
            show_line(line)
        for state in sums.states():
            if state in MEANINGS:
                show_line(f"{state}: {MEANINGS[state]}", Tone.NOTE)
        found = f"{len(self._differences)} differences" if self._differences else "no difference"
        old = "; some is unexplained for too long" if late else ""
        show_line(f"{found}{old}", Tone.BAD if late else Tone.GOOD)

    def _has_room(self, rows: Mapping[tuple[str, ...], object], place: tuple[str, ...]) -> bool:
        if place in rows or len(rows) < MAX_SHOWN:
            return True
        self._left_out = True
        return False

    def _recorded_rows(self) -> Iterator[Row]:
        for (*place, payer), (numbers, states) in self._recorded.items():
            total = sum(states.values())
            became = listed(states) if total else ", ".join(states)
            tone = Tone.PLAIN if states.keys() <= {"reported", "not_billable"} else Tone.NOTE
            yield Row((*place, numbers[0], shown(total), became, payer), tone)

    def _meter_rows(self) -> Iterator[Row]:
        for place, (reported, counted) in self._meters.items():
            total = sum(value for state, value in reported.items() if state != "superseded")
            beside = {state: value for state, value in counted.items() if state != "counted"}
            sure = not beside and reported.keys() <= {"reported"}
            tone = Tone.BAD if "unexplained" in beside else Tone.PLAIN if sure else Tone.NOTE
            shown_sum = shown(counted.get("counted", 0))
            yield Row(
                (*place, shown(total), listed(reported), shown_sum, listed(beside)),
                tone,
            )


def _notes(scope: Scope) -> Iterator[str]:
    if not scope.accounts:
        yield "the ledger has no account with this customer"
    for account in sorted(scope.shared):
        whose = "the user's own account" if account == scope.user else f"account {account}"
        yield f"{whose} may pay for others: what it reported, and Stripe counted, is of them all"
    for each in scope.periods:
        span = f"{rfc_3339(each.start)} to {rfc_3339(each.end)}"
        yield f"a period at Stripe of account {each.account}, {each.subscription}: {span}"
    if not scope.totals_complete:
        yield "runs without a reading are left out: first run usage-ingest totals --rebuild"
    for (customer, meter), as_of in scope.read_at.items():
        yield f"Stripe's sums of {customer} on {meter} were read last at {rfc_3339(as_of)}"
    if not scope.read_at:
        yield "Stripe's sums were never read"


def _as_text(name: str | None) -> str | None:
    """Return a name as a cell that no spreadsheet takes for a formula: publishers choose names."""
    return f"'{name}" if name and name[0] in FORMULA_SIGNS else name


def _named(each: OpenDifference) -> Iterator[str]:
    """Yield the identifiers of a difference's reports, those first that could be all of it."""
    suspected = set(suspects([named.report for named in each.reports], each.difference))
    ordered = sorted(each.reports, key=lambda named: named.report.report_id not in suspected)
    for named in ordered[:MAX_NAMED]:
        yield named.identifier


def _some(named: Sequence[str], number: int) -> str:
    more = number - len(named)
    return " ".join(named) + (f" and {more} more" if more else "")


def _heading(scope: Scope) -> dict[str, object]:
    return {
        "user": None if scope.user is None else str(scope.user),
        "from": scope.start,
        "to": scope.end,
        "accounts": [str(each) for each in scope.accounts],
        "customers": list(scope.customers),
        "shared_accounts": sorted(str(each) for each in scope.shared),
        "totals_complete": scope.totals_complete,
        "stripe_periods": [
            {
                "account": str(each.account),
                "subscription": each.subscription,
                "from": each.start,
                "to": each.end,
            }
            for each in scope.periods
        ],
        "sums_read": [
            {"customer": customer, "meter": meter, "as_of": as_of}
            for (customer, meter), as_of in scope.read_at.items()
        ],
    }


def _fields(line: Line) -> dict[str, Any]:
    return {
        "part": line.part.value,
        "start": line.day,
        "account": None if line.account is None else str(line.account),
        "customer": line.customer,
        "server": line.server,
        "tool": line.tool,
        "meter": line.meter,
        "state": line.state,
        "number": line.number,
        "value": line.value,
    }
