"""Mutated reports and outcomes between the services: each ends in one right place."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from fuzz.bodies import Origin
from fuzz.harness import (
    assert_reasons_fit,
    contract_reason,
    mixed,
    process_all,
)
from fuzz.mutations import Target, WireMessage
from local_stack.catalogue import METER
from nexus_contracts import (
    Event,
    EventData,
    UsageRecorded,
    UsageRejectedV1,
    UsageReportedV1,
    read_event,
)
from nexus_messaging.topology import INTERNAL, USAGE_OUTCOMES_QUEUE, USAGE_RECORDED_QUEUE
from support.events import provisioned, report, tool_run
from support.platform import Platform
from support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(590)]

SEED = 20260302
GOOD = 200
MUTATED = 400
MUTATIONS = 1500

REPORTER, INGEST = "stripe-reporter", "usage-ingest"
OUTCOMES: Sequence[type[UsageReportedV1 | UsageRejectedV1]] = (UsageReportedV1, UsageRejectedV1)

COUNTED = "SELECT identifier, stripe_customer_id, value FROM meter_calls WHERE state = 'accepted'"
STATES = "SELECT report_id, state FROM usage_reports"
FORWARDED = "SELECT report_id, identifier FROM usage_reports WHERE state = 'forwarded'"


def origins(events: Sequence[Event[EventData]]) -> list[Origin]:
    """Return origins of mutations, each with the event before it as the other one."""
    dumped = [event.model_dump(mode="json", exclude_none=True) for event in events]
    return [Origin(each, dumped[number - 1]) for number, each in enumerate(dumped)]


def ends_in_time(wire: WireMessage) -> bool:
    """Whether a report ends in time: one of another meter, or of the future, waits."""
    if contract_reason(wire.body, [UsageRecorded]):
        return True
    data = read_event(wire.body, [UsageRecorded]).data
    return data.meter == METER and data.occurred_at < datetime.now(UTC)


async def test_mutated_report_is_counted_once_or_dead_lettered(platform: Platform) -> None:
    """Stripe counts it once if it accepts it, else it is a dead letter with body and reason."""
    rng = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    platform.settings["DEAD_LETTER_SHARE_LIMIT"] = "1"
    platform.start(REPORTER)
    customers = await platform.customers(60)
    some: dict[str, Any] = {"value": 3, "event_count": 3, "dimensions": {"tool_name": "forecast"}}
    made = origins([report(rng.choice(customers), **some) for _ in range(GOOD + MUTATED)])
    good, others = made[:GOOD], made[GOOD:]
    target = Target("usage.recorded.v1", platform.vhost.broker.admin.user)
    wires = list(filter(ends_in_time, mixed(rng, good, others, target, MUTATIONS)))

    ends = await process_all(platform, REPORTER, INTERNAL, USAGE_RECORDED_QUEUE, wires)
    counted = {row[0]: row[1:] for row in await platform.rows("stripe_reporter", COUNTED)}
    async with platform.stripe() as stripe:
        at_stripe = await stripe.events()

    refusals = ("event_id_taken", "no_such_customer", "refused_by_stripe", "timestamp_too_old")
    assert_reasons_fit(ends, [UsageRecorded], refusals)
    processed = ends.processed()
    facts = [read_event(body, [UsageRecorded]).data for body in processed]
    assert {each.identifier for each in facts} == counted.keys()
    wanted = {(each.identifier, each.stripe_customer_id, each.value) for each in facts}
    assert {(name, *fact) for name, fact in counted.items()} <= wanted
    assert sorted(str(each["identifier"]) for each in at_stripe) == sorted(map(str, counted))
    assert all(processed[each.body()] for each in good)
    assert len(ends.dead) > MUTATIONS / 3


async def reports_of(platform: Platform, number: int) -> list[tuple[UUID, str]]:
    """Have usage-ingest make and forward reports; return their ids and identifiers."""
    user, past = uuid4(), datetime.now(UTC) - timedelta(minutes=1)
    await platform.vhost.publish(provisioned(user, "cus_1"), exchange=INTERNAL)
    await platform.vhost.publish(*(tool_run(user, time=past) for _ in range(number)))
    found = await eventually(
        lambda: platform.rows("usage_ingest", FORWARDED),
        lambda rows: len(rows) == number,
        within=90,
    )
    return [(UUID(str(report_id)), str(identifier)) for report_id, identifier in found]


def outcome(report_id: UUID, identifier: str, *, counted: bool) -> Event[EventData]:
    """Return the outcome of a report: counted, or refused."""
    fields: dict[str, Any] = {
        "report_id": report_id,
        "identifier": identifier,
        "at": datetime.now(UTC),
        "ever_unknown": False,
    }
    data: EventData = (
        UsageReportedV1(**fields)
        if counted
        else UsageRejectedV1(**fields, reason="refused_by_stripe")
    )
    return Event.of(data, source="stripe-reporter", id=uuid4(), time=datetime.now(UTC))


async def test_mutated_outcome_is_applied_or_dead_lettered(platform: Platform) -> None:
    """It is applied if its report is known, else it is a dead letter with body and reason."""
    rng = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    platform.settings |= {"DEAD_LETTER_SHARE_LIMIT": "1", "REPORT_WINDOW_SECONDS": "0"}
    platform.start(INGEST)
    reports = await reports_of(platform, GOOD + MUTATED)
    good = origins([outcome(*each, counted=True) for each in reports[:GOOD]])
    others = origins([outcome(*each, counted=rng.random() < 0.5) for each in reports[GOOD:]])
    target = Target("usage.reported.v1", platform.vhost.broker.admin.user)
    wires = mixed(rng, good, others, target, MUTATIONS)

    ends = await process_all(platform, INGEST, INTERNAL, USAGE_OUTCOMES_QUEUE, wires)
    states = {row[0]: row[1] for row in await platform.rows("usage_ingest", STATES)}

    assert_reasons_fit(ends, OUTCOMES, ["unknown_report"])
    processed = ends.processed()
    expected = dict.fromkeys(states, "forwarded")
    for event in sorted(
        (read_event(body, OUTCOMES) for body in processed), key=lambda event: event.type
    ):
        # `rejected` sorts before `reported`, and only rises to it.
        expected[event.data.report_id] = event.type.split(".")[1]
    assert states == expected
    assert all(processed[each.body()] for each in good)
    assert len(ends.dead) > MUTATIONS / 3
