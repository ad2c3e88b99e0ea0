"""How a statement is written: lines of JSON, comma-separated values; `tables` is for people."""

import csv
import sys
from typing import Any, Final, Protocol

from nexus_service.console import rfc_3339, show_json
from usage_ingest.reconcile import as_text, facts
from usage_ingest.statement.lines import Line
from usage_ingest.statement.rows import Events, Scope
from usage_ingest.statement.sums import Sums
from usage_ingest.storage.differences import OpenDifference


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
        cells = {name: as_text(each) for name, each in texts.items()}
        self._rows.writerow(_fields(line) | cells | {"start": rfc_3339(line.day)})

    def difference(self, each: OpenDifference, events: Events, *, late: bool) -> None:  # noqa: ARG002
        """Write a difference of an hour."""
        self._rows.writerow(
            {
                "part": "difference",
                "start": rfc_3339(each.difference.hour),
                "customer": each.customer,
                "meter": as_text(each.meter),
                "state": each.difference.kind.value,
                "number": len(each.reports),
                "value": each.difference.by,
                "reports": " ".join(named.identifier for named in each.reports),
                "events": " ".join(str(event) for some in events.values() for event in some),
                "settlement": as_text(each.settlement),
            }
        )

    def end(self, sums: Sums, *, late: bool) -> None:
        """Write nothing: a spreadsheet adds up."""


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
