"""Ten thousand mutated tool runs through usage-ingest: each ends in one right place."""

import random
from uuid import UUID

import pytest

from fuzz.bodies import Origin
from fuzz.harness import (
    assert_reasons_fit,
    mixed,
    process_all,
)
from fuzz.mutations import Target
from nexus_contracts import TOOL_EXECUTED_VERSIONS, read_event
from nexus_messaging.topology import EVENTS, TOOL_EXECUTED_QUEUE, USER_CREATED_QUEUE
from support.events import tool_run
from support.metrics import sample
from support.platform import Platform

pytestmark = [pytest.mark.long, pytest.mark.timeout(590)]

SEED = 20260301
GOOD = 1500
MUTATED = 3000
"""Events to be mutated, each some three times, so that ids occur again."""
MUTATIONS = 10_500

INGEST = "usage-ingest"
OTHER_REASONS = ("event_id_taken", "timestamp_in_future")
"""Reasons of messages that keep the contract."""

KNOWN = ("duplicate", "details_added")
"""Outcomes of runs that are in the ledger already."""
LEDGER = "SELECT event_id, source, tool_name FROM usage_events"
LEFT_OUT = "SELECT count(*)::int FROM usage_events WHERE metadata_left_out"


def origins(rng: random.Random, number: int) -> list[Origin]:
    """Return tool runs, each with another one that is not among them."""
    others = [_event(rng) for _ in range(50)]
    return [Origin(_event(rng), rng.choice(others)) for _ in range(number)]


def _event(rng: random.Random) -> dict[str, object]:
    run = tool_run(
        UUID(int=rng.getrandbits(128), version=4),
        event_id=UUID(int=rng.getrandbits(128), version=4),
        tool_name=rng.choice(("forecast", "tööl", "a/b c")),
        kind=rng.choice(TOOL_EXECUTED_VERSIONS),
        token_count=rng.randrange(5000),
        model="large",
        cached_tokens=rng.randrange(5000),
        metadata={"model": "m", "depth": {"list": [1, 2.5, None, "x"]}},
    )
    return run.model_dump(mode="json")


async def test_mutated_tool_run_is_recorded_or_dead_lettered(platform: Platform) -> None:
    """It is recorded once if it is valid, else it is a dead letter with body and reason.

    All good runs are recorded, nothing is delivered twice, and no loop fails.
    """
    rng = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    platform.settings["DEAD_LETTER_SHARE_LIMIT"] = "1"
    platform.start(INGEST)
    good = origins(rng, GOOD)
    target = Target("tool.executed.v1", platform.vhost.broker.admin.user, cc="user.created.v1")
    wires = mixed(rng, good, origins(rng, MUTATED), target, MUTATIONS)

    ends = await process_all(platform, INGEST, EVENTS, TOOL_EXECUTED_QUEUE, wires)
    ledger = {row[0]: row[1:] for row in await platform.rows("usage_ingest", LEDGER)}

    assert_reasons_fit(ends, TOOL_EXECUTED_VERSIONS, OTHER_REASONS)
    processed = ends.processed()
    events = [read_event(body, TOOL_EXECUTED_VERSIONS) for body in processed]
    assert {event.id for event in events} == ledger.keys()
    facts = {(each.id, each.source, each.data.tool_name) for each in events}
    assert {(id_, *fact) for id_, fact in ledger.items()} <= facts
    assert all(processed[each.body()] for each in good)
    assert {UUID(each.event["id"]) for each in good} <= ledger.keys()
    url = platform.services[INGEST].url
    known = sum(
        [await sample(url, f'usage_ingest_events_total{{outcome="{each}"}}') for each in KNOWN]
    )
    assert len(wires) == len(ledger) + known + len(ends.dead) + len(ends.unroutable)
    assert await platform.vhost.depth(USER_CREATED_QUEUE) == sum(wire.copies for wire in wires)
    assert len(ends.dead) > MUTATIONS / 3
    assert set(OTHER_REASONS) < ends.reasons().keys()
    assert await platform.number("usage_ingest", LEFT_OUT) > 0
