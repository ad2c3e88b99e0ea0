"""The commands for operators that only read: status, explain and payers."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

from nexus_broker_admin.depths import Depths, read_depths, vhost_of
from nexus_database import (
    Database,
    DatabaseUnavailableError,
    MigrationError,
    RowsBusyError,
    UnfitDatabaseError,
)
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_messaging.connecting import BrokerUnreachableError
from nexus_messaging.errors import PublishError
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import (
    Finding,
    Tone,
    show_error,
    show_json,
    show_line,
    show_lines,
    show_table,
)
from usage_ingest.explanation import explain, explain_payers
from usage_ingest.settings import NAME, ExplainSettings, StatusSettings
from usage_ingest.status import (
    LEDGER_TITLES,
    QUEUE_TITLES,
    QUEUES,
    LedgerCounts,
    findings,
    ledger_rows,
    queue_rows,
)
from usage_ingest.storage.reader import LedgerReader
from usage_ingest.storage.status import StatusReader

FAULTS: Final = (
    MigrationError,
    UnfitDatabaseError,
    DatabaseUnavailableError,
    RowsBusyError,
    PublishError,
)
"""What any command may raise; each text says what to do."""


@asynccontextmanager
async def open_ledger(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open the ledger for the time of a command."""
    url = settings.database_url.get_secret_value()
    async with Database(url, name=f"{NAME} command") as database:
        yield database


async def show_status(settings: StatusSettings, parsed: argparse.Namespace) -> int:
    """Show usage in ledger and queues; fail if anything keeps it from Stripe."""
    now = utc_now()
    (counts, ledger), (depths, broker) = await asyncio.gather(
        _counts(settings, now, parsed.days), _depths(settings)
    )
    found = [*ledger, *broker, *findings(counts, depths, now, parsed.late_after)]
    degraded = any(each.tone is Tone.BAD for each in found)
    if parsed.json:
        shown = [{"name": e.name, "text": e.text, "tone": e.tone.name.lower()} for e in found]
        show_json(_facts(counts, depths, now) | {"degraded": degraded, "findings": shown})
        return FAILED if degraded else SUCCESS
    if counts is not None:
        show_table(LEDGER_TITLES, ledger_rows(counts, now, parsed.late_after))
    if depths is not None:
        show_table(QUEUE_TITLES, queue_rows(depths))
    for each in found:
        show_line(f"{each.name}: {each.text}", each.tone)
    return FAILED if degraded else SUCCESS


async def _counts(
    settings: StatusSettings, now: datetime, days: timedelta | None
) -> tuple[LedgerCounts | None, list[Finding]]:
    """Query the ledger; if it does not answer, the broker is queried all the same."""
    since = now - (days or timedelta(days=1))
    try:
        async with open_ledger(settings) as ledger:
            return await StatusReader(ledger).counts(since, all_reported=days is not None), []
    except DatabaseUnavailableError as error:
        show_error(NAME, str(error))
        return None, [Finding("ledger", str(error), Tone.BAD)]


async def _depths(settings: StatusSettings) -> tuple[Depths | None, list[Finding]]:
    """Query the broker; if it does not answer, the ledger is shown all the same."""
    if settings.amqp_url is None:
        text = "queues and dead letters were not read: set AMQP_URL"
        return None, [Finding("broker", text, Tone.NOTE)]
    url, management = settings.amqp_url.get_secret_value(), settings.management_url
    address = management.get_secret_value() if management else None
    try:
        return await read_depths(url, QUEUES, address, vhost_of(url)), []
    except BrokerUnreachableError as error:
        return None, [Finding("broker", str(error), Tone.BAD)]


def _facts(counts: LedgerCounts | None, depths: Depths | None, now: datetime) -> dict[str, object]:
    """Return the same for programs; what was not read, or could not be, is null."""
    facts: dict[str, object] = dict.fromkeys(
        (
            *("since", "events", "reports", "newest", "stripe", "late_seconds"),
            *("queues", "connected"),
        )
    )
    if counts is not None:
        facts |= asdict(counts)
        facts["late_seconds"] = counts.oldest_unfinished(now).total_seconds()
    if depths is not None:
        facts["queues"] = {queue: asdict(depth) for queue, depth in depths.queues.items()}
        facts["connected"] = None if depths.connected is None else sorted(depths.connected)
    return facts


async def explain_event(settings: ExplainSettings, parsed: argparse.Namespace) -> int:
    """Show every step of one event; fail if it is not in the ledger."""
    async with open_ledger(settings) as ledger:
        history = await LedgerReader(ledger).history(
            parsed.event_id, utc_now(), settings.invoice_grace, settings.plans_file
        )
    if history is None:
        show_error(
            NAME,
            f"{parsed.event_id} is not in the ledger: it was never published or confirmed,"
            " still waits in usage-ingest.tool-executed or a retry tier, or lies in its"
            " dead-letter queue",
        )
        return FAILED
    show_lines(explain(history))
    return SUCCESS


async def show_payers(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Show whose account pays for a user's runs, and what stays with another one."""
    async with open_ledger(settings) as ledger:
        assignments = await LedgerReader(ledger).assignments(parsed.user_id)
    show_lines(explain_payers(parsed.user_id, assignments))
    return SUCCESS
