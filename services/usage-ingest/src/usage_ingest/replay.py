"""The operators' command ``replay``: forward again what was never answered."""

import argparse
import asyncio
from contextlib import AsyncExitStack

from nexus_messaging.clock import utc_now
from nexus_messaging.outgoing import send
from nexus_messaging.publisher import Publisher
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import Tone, show_error, show_line, steps
from usage_ingest.commands import open_ledger
from usage_ingest.jobs import usage_recorded
from usage_ingest.settings import NAME, ReplaySettings
from usage_ingest.storage.reader import LedgerReader
from usage_ingest.storage.reports import InvalidReportError


async def replay_reports(settings: ReplaySettings, parsed: argparse.Namespace) -> int:
    """Forward again what was forwarded longer ago than an age and never answered."""
    before = utc_now() - parsed.older_than
    async with AsyncExitStack() as stack:
        reader = LedgerReader(await stack.enter_async_context(open_ledger(settings)))
        number = await reader.unanswered_number(before)
        if not parsed.execute:
            show_line(f"{number} reports would be forwarded again; nothing was: add --execute")
            return SUCCESS
        publisher = await Publisher.connect(settings.amqp_url.get_secret_value(), name=NAME)
        stack.push_async_callback(publisher.close)
        done, unsent = 0, 0
        with steps("reports forwarded again", number) as progress:
            async for report in reader.unanswered(before):
                if isinstance(report, InvalidReportError):
                    unsent += 1
                    show_error(NAME, f"report {report.report_id}: {report}")
                    continue
                await send(publisher, usage_recorded(report, utc_now()))
                done += 1
                progress.advance()
                await asyncio.sleep(1 / parsed.throttle)
    show_line(f"{done} reports were forwarded again")
    if unsent:
        show_line(f"{unsent} can't be sent as they are stored", Tone.BAD)
    return FAILED if unsent else SUCCESS
