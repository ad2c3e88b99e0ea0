"""The command `totals`: how far they are folded, whether they are right, and a rebuild."""

import argparse
from datetime import datetime

from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import Tone, rfc_3339, show_line
from usage_ingest.settings import NAME
from usage_ingest.storage.totals import PARTS, Difference, Totals


async def show_totals(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Show up to when totals are folded; compare them with a scan, or rebuild them from one.

    Fail if they have yet to be rebuilt, or a comparison finds differences.
    """
    url = settings.database_url.get_secret_value()
    async with Database(url, name=f"{NAME} command") as database:
        totals = Totals(database)
        if parsed.rebuild:
            for part in PARTS:
                show_line(f"{part}: {await totals.rebuild(part)} rows mended", Tone.GOOD)
        if parsed.verify:
            return await _verify(totals)
        return await _show_progress(totals)


async def _verify(totals: Totals) -> int:
    different = 0
    for part in PARTS:
        found = await totals.compare(part, lambda each: show_line(_worded(each), Tone.BAD))
        show_line(f"{part}: {found or 'no'} differences", Tone.BAD if found else Tone.GOOD)
        different += found
    return FAILED if different else SUCCESS


async def _show_progress(totals: Totals) -> int:
    progress = await totals.progress()
    for each in progress:
        if each.as_of is None:
            show_line(f"{each.part}: incomplete; run usage-ingest totals --rebuild", Tone.BAD)
        else:
            show_line(f"{each.part}: folded up to {rfc_3339(each.as_of)}")
    return FAILED if any(each.as_of is None for each in progress) else SUCCESS


def _worded(difference: Difference) -> str:
    """Return one line: whose total, of what, and both sums of whatever differs."""
    sums = [name for name in difference if f"total_{name}" in difference]
    keys = (
        _key(value)
        for name, value in difference.items()
        if name not in sums and not name.startswith("total_")
    )
    differing = (
        f"{name} {difference[name]} in the ledger, {difference[f'total_{name}']} in the totals"
        for name in sums
        if difference[name] != difference[f"total_{name}"]
    )
    return f"{' '.join(keys)}: {'; '.join(differing)}"


def _key(value: object) -> str:
    return rfc_3339(value) if isinstance(value, datetime) else str(value)
