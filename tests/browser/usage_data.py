"""What the tests of the usage component show, and how they put it into a page."""

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from browser.usage_page import UsagePage
from browser.usage_stand_in import (
    ADA,
    Json,
    UsageApi,
    UserData,
    at,
    limit,
    midnight,
    run,
)

PHONE = 360
"""Pixels: the width of a small phone."""


def amount(
    meter: str,
    accepted: int,
    waiting: int = 0,
    *,
    reasons: Mapping[str, int] | None = None,
    **why: int,
) -> Json:
    """Build an entry of ``amounts``, for today."""
    entry = {"start": at(midnight()), "meter": meter, "accepted": accepted, "waiting": waiting}
    return {**entry, "why": why, **({} if reasons is None else {"reasons": reasons})}


def some_usage() -> UserData:
    """Return two servers' runs of two days, two limits, and amounts of two meters."""
    return UserData(
        recorded=[
            run("weather", "forecast", 1200, days_ago=1, tokens=50),
            run("weather", "alerts", 34),
            run("files", "search", 6),
        ],
        amounts=[
            amount(
                *("tool_call_executed", 1198, 42),
                not_sent=30,
                refused=12,
                reasons={"no_such_customer": 10, "timestamp_too_old": 2},
            ),
            amount("llm_cost_micros", 1_500_000),
        ],
        limits=[limit("runs", 1240, 2000), *premium()],
        denied=[{"server_id": "payroll", "tool_name": "*"}],
    )


def premium() -> list[Json]:
    """Return a limit that is reached, of two patterns: an entry for each."""
    return [limit("premium", 200, 200, server=server) for server in ("browser", "sql-*")]


def asked(api: UsageApi, path: str = "/v1/usage") -> dict[str, str]:
    """Return the parameters of the last request of a path."""
    requests = [urlsplit(request) for request, _ in api.requests]
    query = next(each.query for each in reversed(requests) if each.path == path)
    return {name: values[0] for name, values in parse_qs(query).items()}


def embed(page: UsagePage, api: UsageApi, *, before: str = "", user: str | None = ADA) -> None:
    """Put the component into a page that has nothing else; ``before`` runs with it as ``usage``."""
    page.open_plain()
    page.script(
        "const [src, token, before] = args; const usage = document.createElement('nexus-usage');"
        f"usage.setAttribute('src', src); if (token) usage.setAttribute('token', token); {before};"
        "document.querySelector('main').append(usage)",
        api.url,
        None if user is None else api.token(user),
    )
