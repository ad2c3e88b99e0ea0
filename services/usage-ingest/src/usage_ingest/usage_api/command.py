"""The command ``usage``: what the usage page shows, in a terminal."""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_service.command import FAILED, SUCCESS
from nexus_service.console import Row, Tone, format_age, rfc_3339, show_error, show_line, show_table
from usage_ingest.settings import NAME
from usage_ingest.usage_api.encoding import as_json
from usage_ingest.usage_api.reading import By, Scope, UsageQuery, whole_spans
from usage_ingest.usage_api.settings import PlansSettings
from usage_ingest.usage_api.storage import MAX_ROWS, ApiAnswer, TooManyRowsError, UsageReader
from usage_ingest.usage_api.usage import REFUSED

LIMITS: Final = ("limit", "meter", "used", "of", "when reached")
RECORDED: Final = ("server", "tool", "runs", "tokens")
AMOUNTS: Final = ("meter", "accepted by Stripe", "waiting", "why")


async def show_usage(settings: PlansSettings, parsed: argparse.Namespace) -> int:
    """Show a user's plan, limits and usage.

    Raises:
        DatabaseUnavailableError: the database can't be used, or the totals are not complete.
    """
    plans, now = settings.plans_file, utc_now()
    scope = Scope(parsed.user_id, None, None)
    start, end = whole_spans(now - parsed.days, now, By.DAY)
    url = settings.database_url.get_secret_value()
    async with Database(url, name=f"{NAME} command", only_reads=True) as database:
        reader = UsageReader(database, plans)
        allowed = await reader.entitlements(scope, plans) if plans else None
        try:
            used = await reader.usage(UsageQuery(scope, start, end, By.DAY))
        except TooManyRowsError:
            show_error(NAME, f"more than {MAX_ROWS} rows: show fewer days")
            return FAILED
    entitlements, usage = _read(allowed) if allowed else None, _read(used)
    if parsed.json:
        print(as_json({"entitlements": entitlements, "usage": usage}))
        return SUCCESS
    if entitlements is not None:
        _show_entitlements(entitlements)
    else:
        show_line("plan and limits are not shown: set PLANS_FILE", Tone.NOTE)
    show_line(f"from {rfc_3339(start)}, as of {rfc_3339(used.as_of)}, {format_age(now - start)}:")
    _show(RECORDED, _recorded(usage["recorded"]), "no runs")
    show_line(f"billed to account {usage['account_id']}, for all its users:")
    _show(AMOUNTS, _amounts(usage["amounts"]), "nothing")
    return SUCCESS


def _read(answer: ApiAnswer) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(answer.content)
    return content | {"as_of": answer.as_of}


def _show_entitlements(content: Mapping[str, Any]) -> None:
    plan, period = content["plan"] or "none: nothing is allowed", content["period"]
    show_line(f"account {content['account_id']}, plan {plan}")
    show_line(f"period {period['start']} to {period['end']}")
    for denied in content["denied"]:
        show_line(f"denied: {denied['server_id']} / {denied['tool_name']}", Tone.NOTE)
    _show(LIMITS, _limits(content["limits"]), "no limits")


def _show(titles: Sequence[str], rows: Iterator[Row], otherwise: str) -> None:
    if found := list(rows):
        show_table(titles, found)
    else:
        show_line(otherwise)


def _limits(limits: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for each in limits:
        refused = f"{each['server_id']} / {each['tool_name']} is refused"
        tone = Tone.PLAIN if each["remaining"] else Tone.BAD
        when = refused if each["hard"] else "announced"
        yield Row((each["name"], each["meter"], each["used"], each["limit"], when), tone)


def _recorded(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the sums by tool, those with the most runs first."""
    runs: Counter[tuple[str, str]] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    for row in rows:
        tool = row["server_id"], row["tool_name"]
        runs[tool] += row["runs"]
        tokens[tool] += row["tokens"]
    for tool, number in runs.most_common():
        yield Row((*tool, number, tokens[tool]))


def _amounts(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the sums by meter, and why they wait or were never sent."""
    accepted: Counter[str] = Counter()
    shadow: Counter[str] = Counter()
    why: Mapping[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        accepted[row["meter"]] += row["accepted"]
        shadow[row["meter"]] += row.get("shadow", 0)
        reasons = ", ".join(row.get("reasons", ()))
        for cause, value in row["why"].items():
            why[row["meter"]][f"{cause} ({reasons})" if cause == REFUSED else cause] += value
    for meter, number in sorted(accepted.items()):
        causes = [f"{cause} {value}" for cause, value in why[meter].items() if value]
        if shadow[meter]:
            causes.append(f"shadow, reported by the way before this one {shadow[meter]}")
        tone = Tone.NOTE if causes else Tone.PLAIN
        yield Row((meter, number, sum(why[meter].values()), ", ".join(causes)), tone)
