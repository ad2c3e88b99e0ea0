"""The command `statement`: what a user or customer used, and whether Stripe's sums are the same."""

import argparse
from datetime import datetime, timedelta
from uuid import UUID

from nexus_database import Database
from nexus_database.settings import DatabaseSettings
from nexus_messaging.clock import utc_now
from nexus_service.command import FAILED, SUCCESS, USAGE
from nexus_service.console import rfc_3339, show_error
from usage_ingest.settings import NAME
from usage_ingest.statement.forms import AsCsv, AsJson, StatementForm
from usage_ingest.statement.lines import lines
from usage_ingest.statement.rows import Scope
from usage_ingest.statement.sums import Sums
from usage_ingest.statement.tables import AsTables
from usage_ingest.storage.statement import StatementReader


async def show_statement(settings: DatabaseSettings, parsed: argparse.Namespace) -> int:
    """Show what was recorded, reported and counted; fail if anything is unexplained too long."""
    now = utc_now()
    span = _span(parsed, now)
    if isinstance(span, str):
        show_error(NAME, f"statement: {span}")
        return USAGE
    form: StatementForm = AsJson() if parsed.json else AsCsv() if parsed.csv else AsTables(now)
    sums, late, paying = Sums(), False, set[UUID | None]()
    url = settings.database_url.get_secret_value()
    async with Database(url, name=f"{NAME} command", only_reads=True) as database:
        reader = StatementReader(database)
        scope = await reader.scope(parsed.of, *span)
        if not scope.is_known:
            show_error(NAME, f"statement: {_unknown(scope)}")
            return FAILED
        form.begin(scope)
        for start, end in scope.days():
            for line in lines(scope, start, await reader.day(scope, start, end)):
                sums.add(line)
                paying.add(line.account)
                form.line(line)
        async for each, events in reader.differences(scope, scope.customers_of(paying)):
            is_late = each.is_late(now, parsed.older_than)
            late |= is_late
            form.difference(each, events, late=is_late)
    late |= sums.late(now, parsed.older_than)
    form.end(sums, late=late)
    return FAILED if late else SUCCESS


def _span(parsed: argparse.Namespace, now: datetime) -> tuple[datetime, datetime] | str:
    """Return the begin and end that are asked for, or what is wrong with them."""
    if parsed.period is not None:
        if parsed.start is not None or parsed.end is not None:
            return "give either --period or --from with --to"
        start, end = parsed.period
    elif parsed.start is None:
        if parsed.end is not None:
            return "--to needs --from"
        start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        end = (start + timedelta(days=31)).replace(day=1)
    else:
        start = parsed.start
        end = parsed.end or now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    if start > now:
        return f"{rfc_3339(start)} has not come yet"
    if start >= end:
        return f"--to must be after --from, {rfc_3339(start)}"
    return start, end


def _unknown(scope: Scope) -> str:
    """Say that the ledger has nothing of a user or customer: nothing used would look the same."""
    if scope.user is None:
        return f"the ledger has no account with the customer {next(iter(scope.customers))}"
    account = f"; an account's is that of its customer, {', '.join(sorted(scope.customers))}"
    return f"the ledger has no user {scope.user}{account if scope.customers else ''}"
