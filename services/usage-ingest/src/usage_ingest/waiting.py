"""The command `waiting`: whose usage waits for a customer that nobody has announced."""

import argparse
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import Row, Tone, show_json, show_line, show_table
from usage_ingest.settings import NAME, WaitingSettings
from usage_ingest.storage.waiting import MAX_READ, WaitingUsage, read_waiting

TITLES: Final = ("account", "user", "runs", "oldest", "newest", "published by")

WHY: Final = (
    "a user nobody announced needs a user.created; of others `customer-provisioner explain USER`"
    " says why they have no customer"
)


async def show_waiting(settings: WaitingSettings, parsed: argparse.Namespace) -> int:
    """Show whose usage waits, the longest first; fail if any waits for longer than allowed."""
    now = utc_now()
    given: timedelta | None = parsed.late_after
    allowed = settings.waiting_allowed if given is None else given
    async with Database(settings.database_url.get_secret_value(), name=f"{NAME} command") as opened:
        waiting = await read_waiting(opened)
    late = [each for each in waiting if now - each.oldest > allowed]
    if parsed.json:
        show_json({"waiting": [_facts(each) for each in waiting], "late": len(late)})
        return FAILED if late else SUCCESS
    rows = [
        Row(
            (
                "the user's own" if each.account_id == each.user_id else str(each.account_id),
                str(each.user_id),
                each.runs,
                now - each.oldest,
                now - each.newest,
                ", ".join(each.sources),
            ),
            Tone.BAD if each in late else Tone.PLAIN,
        )
        for each in waiting[: parsed.most]
    ]
    if rows:
        show_table(TITLES, rows)
    for line in _closing(waiting, parsed.most):
        show_line(line, Tone.NOTE)
    return FAILED if late else SUCCESS


def _closing(waiting: Sequence[WaitingUsage], most: int) -> list[str]:
    runs = sum(each.runs for each in waiting)
    lines = [WHY] if waiting else ["nobody's usage waits for a customer"]
    if len(waiting) > most:
        lines.append(f"and {len(waiting) - most} more; see --most")
    if runs == MAX_READ:
        lines.append(f"only the oldest {MAX_READ} runs were looked at")
    return lines


def _facts(waiting: WaitingUsage) -> dict[str, object]:
    return {
        "account_id": str(waiting.account_id),
        "user_id": str(waiting.user_id),
        "runs": waiting.runs,
        "oldest": waiting.oldest,
        "newest": waiting.newest,
        "sources": waiting.sources,
    }
