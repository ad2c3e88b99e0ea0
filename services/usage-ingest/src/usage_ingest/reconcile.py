"""The commands `reconcile` and `settle`: where Stripe's own sums differ from the ledger."""

import argparse
import csv
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import (
    Cell,
    Row,
    Tone,
    rfc_3339,
    show_error,
    show_json,
    show_line,
    show_table,
)
from usage_ingest.inference import infer, suspects
from usage_ingest.reconciliation import DifferenceKind, as_number
from usage_ingest.settings import NAME
from usage_ingest.storage.counted import find_last_reading
from usage_ingest.storage.differences import DifferenceReader, OpenDifference, settle

TITLES: Final = ("customer", "meter", "hour", "kind", "expected", "counted", "by", "age", "reports")

FORMULA_SIGNS: Final = "=+-@"

MAX_SHOWN: Final = 1000
"""Rows of a table; --json and --csv have all."""

MEANINGS: Final[Mapping[DifferenceKind, str]] = {
    DifferenceKind.LOWER: "Stripe shows less than it had accepted, or than shadow reports come to",
    DifferenceKind.HIGHER: "Stripe shows more than all that was sent, and shadow reports",
    DifferenceKind.GONE: "Stripe has deleted the customer: nothing of it is invoiced",
    DifferenceKind.FOREIGN: "the ledger knows no such customer",
}


async def reconcile(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Show every open difference; fail if any is known for longer than allowed."""
    now = utc_now()
    url = settings.database_url.get_secret_value()
    async with Database(url, name=f"{NAME} command") as database:
        reader = DifferenceReader(database)
        found = reader.open_ones(
            customer=parsed.customer,
            meter=parsed.meter,
            since=parsed.since,
            settled=parsed.settled,
        )
        if parsed.json:
            return await _as_json(found, now, parsed)
        if parsed.csv:
            return await _as_csv(found, now, parsed)
        last = await find_last_reading(database, customer=parsed.customer, meter=parsed.meter)
        return await _as_table(found, last, now, parsed)


async def settle_difference(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Note that a difference is settled; fail if there is none."""
    url = settings.database_url.get_secret_value()
    async with Database(url, name=f"{NAME} command") as database:
        place = (parsed.customer, parsed.meter, parsed.hour)
        settled = await settle(database, *place, parsed.note)
    if settled is None:
        show_error(NAME, "no difference is open there: usage-ingest reconcile lists them")
        return FAILED
    amount = f"{settled.kind} by {_shown(settled.by)}"
    show_line(f"settled: {amount}; it counts as open again if it changes")
    return SUCCESS


async def _as_table(
    found: AsyncIterator[OpenDifference],
    last: datetime | None,
    now: datetime,
    parsed: argparse.Namespace,
) -> int:
    rows: list[Row] = []
    kinds: set[DifferenceKind] = set()
    late = 0
    async for each in found:
        if len(rows) == MAX_SHOWN:
            show_line(f"only {MAX_SHOWN} are shown; --json and --csv have all", Tone.NOTE)
            break
        is_late = each.is_late(now, parsed.older_than)
        late += is_late
        kinds.add(each.difference.kind)
        cells = _cells(each, now, kind_of(each))
        rows.append(Row(cells, Tone.BAD if is_late else Tone.NOTE))
    if rows:
        show_table(TITLES, rows)
    for kind in sorted(kinds):
        show_line(f"{kind}: {MEANINGS[kind]}")
    of = f" of {parsed.customer}" if parsed.customer else ""
    on = f" on {parsed.meter}" if parsed.meter else ""
    when = "were not read yet" if last is None else f"were read last at {rfc_3339(last)}"
    number = f"{len(rows)} differences" if rows else "no difference is open"
    show_line(f"{number}; Stripe's sums{of}{on} {when}", Tone.BAD if late else Tone.GOOD)
    return FAILED if late else SUCCESS


async def _as_json(
    found: AsyncIterator[OpenDifference], now: datetime, parsed: argparse.Namespace
) -> int:
    late = False
    async for each in found:
        late |= each.is_late(now, parsed.older_than)
        show_json(facts(each))
    return FAILED if late else SUCCESS


async def _as_csv(
    found: AsyncIterator[OpenDifference], now: datetime, parsed: argparse.Namespace
) -> int:
    late, written = False, csv.writer(sys.stdout)
    written.writerow((*TITLES, "settlement"))
    async for each in found:
        late |= each.is_late(now, parsed.older_than)
        cells = (*_cells(each, now, each.difference.kind.value), as_text(each.settlement))
        written.writerow(
            int(cell.total_seconds()) if isinstance(cell, timedelta) else cell for cell in cells
        )
    return FAILED if late else SUCCESS


def facts(each: OpenDifference) -> dict[str, object]:
    """Return a difference for programs, with each report of its hour and what is inferred of it."""
    reports = [named.report for named in each.reports]
    inferred = infer(reports, each.difference.counted, each.last_seen)
    suspected = set(suspects(reports, each.difference))
    return {
        "customer": each.customer,
        "meter": each.meter,
        "hour": each.difference.hour,
        "kind": each.difference.kind.value,
        "expected": each.difference.expected,
        "at_most": each.difference.at_most,
        "counted": each.difference.counted,
        "by": each.difference.by,
        "first_seen": each.first_seen,
        "last_seen": each.last_seen,
        "settlement": each.settlement,
        "reports": [
            {
                "report_id": str(named.report.report_id),
                "identifier": named.identifier,
                "value": named.report.value,
                "state": named.report.state,
                "reason": named.reason,
                "inferred_at_stripe": inferred.get(named.report.report_id),
                "could_explain": named.report.report_id in suspected,
            }
            for named in each.reports
        ],
    }


def _cells(each: OpenDifference, now: datetime, kind: str) -> tuple[Cell, ...]:
    difference = each.difference
    return (
        each.customer,
        each.meter,
        rfc_3339(difference.hour),
        kind,
        difference.expected,
        _shown(difference.counted),
        _shown(difference.by),
        now - each.first_seen,
        len(each.reports),
    )


def kind_of(each: OpenDifference) -> str:
    """Return its kind, and whether a person has settled it."""
    settled = "" if each.settlement is None else ", settled"
    return f"{each.difference.kind.value}{settled}"


def as_text(written: str | None) -> str | None:
    """Return a cell of CSV that no spreadsheet takes for a formula: others have written it."""
    return f"'{written}" if written and written[0] in FORMULA_SIGNS else written


def _shown(value: float) -> int | str:
    number = as_number(value)
    return number if isinstance(number, int) else str(number)
