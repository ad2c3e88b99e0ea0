"""A statement as tables, for people."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from nexus_service.console import Row, Tone, rfc_3339, show_line, show_table
from usage_ingest.inference import suspects
from usage_ingest.reconcile import MAX_SHOWN, kind_of
from usage_ingest.reconciliation import Number
from usage_ingest.statement.lines import Line, Part
from usage_ingest.statement.rows import Events, Scope
from usage_ingest.statement.sums import Sums, as_sum, digits
from usage_ingest.storage.differences import OpenDifference

MAX_NAMED: Final = 3
"""Reports of a difference in its row of the table, those first that could be all of it."""

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
            digits(each.difference.by),
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
            became = as_sum(states) if total else ", ".join(states)
            tone = Tone.PLAIN if states.keys() <= {"reported", "not_billable"} else Tone.NOTE
            yield Row((*place, numbers[0], digits(total), became, payer), tone)

    def _meter_rows(self) -> Iterator[Row]:
        for place, (reported, counted) in self._meters.items():
            total = sum(value for state, value in reported.items() if state != "superseded")
            beside = {state: value for state, value in counted.items() if state != "counted"}
            sure = not beside and reported.keys() <= {"reported"}
            tone = Tone.BAD if "unexplained" in beside else Tone.PLAIN if sure else Tone.NOTE
            shown_sum = digits(counted.get("counted", 0))
            yield Row(
                (*place, digits(total), as_sum(reported), shown_sum, as_sum(beside)),
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


def _named(each: OpenDifference) -> Iterator[str]:
    """Yield the identifiers of a difference's reports, those first that could be all of it."""
    suspected = set(suspects([named.report for named in each.reports], each.difference))
    ordered = sorted(each.reports, key=lambda named: named.report.report_id not in suspected)
    for named in ordered[:MAX_NAMED]:
        yield named.identifier


def _some(named: Sequence[str], number: int) -> str:
    more = number - len(named)
    return " ".join(named) + (f" and {more} more" if more else "")
