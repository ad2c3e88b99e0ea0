"""A small file of plans, and what changes in it."""

from collections.abc import Callable

import pytest

from nexus_plans import Plans
from nexus_plans.reading import read

FILE = """\
version: 1
unknown_users: deny
without_subscription: free
meters:
  premium_calls: {display_name: Premium}
  cost_micros: {display_name: Cost, unit: micro-USD}
  unique_tools: {display_name: Unique tools}
routes:
  own: {servers: [sql-own]}
  premium: {servers: [browser, "sql-*"], gated: true}
  exports: {servers: [files], tools: ["export_*"]}
  tokens: {priced: models}
plans:
  free:
    display_name: Free
    meters: {"@premium": premium_calls, "@tokens": cost_micros}
    markup_percent: {"@tokens": 30}
    limits:
      - {name: runs, meter: tool_call_executed, limit: 10, hard: true}
      - {name: premium, meter: premium_calls, limit: 5}
      - {name: files, meter: premium_calls, limit: 5, servers: [files], tools: [a, b]}
  pro:
    display_name: Pro
    premium: [premium]
    meters: {"@premium": tool_call_executed}
    unique_tools_meter: unique_tools
    lookup_keys: [legacy_pro]
    prices:
      - lookup_key: pro_seats
        product: pro
        currency: usd
        recurring: {interval: month}
        seats: true
        unit_amount: 100
products:
  pro: {name: Pro}
models:
  adding:
    names: ["adding-*"]
    cached_tokens: addition
    prices:
      - {from: 2026-01-01, input: 3000000, output: 15000000, cached: 300000, source: here}
      - {from: 2026-03-01, input: 1000000, output: 5000000, cached: 100000, source: there}
  within:
    cached_tokens: part
    prices:
      - {from: 2026-01-01, input: 1000000, output: 8000000, cached: 500000, source: here}
"""

Edited = Callable[[str, str], Plans]


@pytest.fixture
def edited() -> Edited:
    """Read the file with one text in it replaced by another."""

    def edit(old: str, new: str) -> Plans:
        assert old in FILE
        return read(FILE.replace(old, new, 1).encode(), "plans.yaml")

    return edit


@pytest.fixture
def plans(edited: Edited) -> Plans:
    """The file as it is."""
    return edited("version: 1", "version: 1")
