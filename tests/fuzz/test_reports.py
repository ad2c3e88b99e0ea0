"""Mutated reports and answers between the services, and every one accounted for."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from fuzz.bodies import Origin
from fuzz.harness import (
    assert_reasons_fit,
    assert_undisturbed,
    contract_reason,
    ends_of,
    mixed,
    publish,
    settled,
)
from fuzz.mutations import Target, Wire
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
from rig.events import provisioned, report, tool_run
from rig.platform import Platform
from rig.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(590)]

SEED = 20260302
GOOD = 200
SPOILT = 400
MUTATIONS = 1500

REPORTER, INGEST = "stripe-reporter", "usage-ingest"
ANSWERS: Sequence[type[UsageReportedV1 | UsageRejectedV1]] = (UsageReportedV1, UsageRejectedV1)

COUNTED = "SELECT identifier, stripe_customer_id, value FROM meter_calls WHERE state = 'accepted'"
STATES = "SELECT report_id, state FROM usage_reports"
FORWARDED = "SELECT report_id, identifier FROM usage_reports WHERE state = 'forwarded'"


def origins(events: Sequence[Event[EventData]]) -> list[Origin]:
    """Return origins of mutations, each lent the id and pieces of the one before it."""
    dumped = [event.model_dump(mode="json", exclude_none=True) for event in events]
    return [Origin(each, dumped[number - 1]) for number, each in enumerate(dumped)]


def ends_in_time(wire: Wire) -> bool:
    """Whether a report ends at all: one of another meter, or of tomorrow, waits for that."""
    if contract_reason(wire.body, [UsageRecorded]):
        return True
    data = read_event(wire.body, [UsageRecorded]).data
    return data.meter == METER and data.occurred_at < datetime.now(UTC)


async def test_every_mutated_report_ends_in_one_right_place(platform: Platform) -> None:
    """Counted once if Stripe takes it, else a dead letter with its bytes and its reason."""
    rng = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    platform.settings["DEAD_LETTER_SHARE_LIMIT"] = "1"
    platform.start(REPORTER)
    pid = platform.services[REPORTER].pid
    whose = await platform.customers(60)
    some: dict[str, Any] = {"value": 3, "event_count": 3, "dimensions": {"tool_name": "forecast"}}
    made = origins([report(rng.choice(whose), **some) for _ in range(GOOD + SPOILT)])
    good, spoilt = made[:GOOD], made[GOOD:]
    target = Target("usage.recorded.v1", platform.vhost.broker.admin.user)
    wires = list(filter(ends_in_time, mixed(rng, good, spoilt, target, MUTATIONS)))

    await publish(platform.vhost, INTERNAL, wires)
    await settled(platform.vhost, USAGE_RECORDED_QUEUE, within=300)
    await assert_undisturbed(platform, REPORTER, pid, USAGE_RECORDED_QUEUE)
    ends = await ends_of(platform, USAGE_RECORDED_QUEUE, wires)
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


def answer(report_id: UUID, identifier: str, *, well: bool) -> Event[EventData]:
    """Return what the reporter says of a report."""
    fields: dict[str, Any] = {
        "report_id": report_id,
        "identifier": identifier,
        "at": datetime.now(UTC),
        "ever_unknown": False,
    }
    data: EventData = (
        UsageReportedV1(**fields) if well else UsageRejectedV1(**fields, reason="refused_by_stripe")
    )
    return Event.of(data, source="stripe-reporter", id=uuid4(), time=datetime.now(UTC))


async def test_every_mutated_answer_ends_in_one_right_place(platform: Platform) -> None:
    """Applied if it is of a report of ours, else a dead letter with its bytes and its reason."""
    rng = random.Random(SEED)  # noqa: S311 - repeatable, not secret
    platform.settings |= {"DEAD_LETTER_SHARE_LIMIT": "1", "REPORT_WINDOW_SECONDS": "0"}
    platform.start(INGEST)
    pid = platform.services[INGEST].pid
    reports = await reports_of(platform, GOOD + SPOILT)
    good = origins([answer(*each, well=True) for each in reports[:GOOD]])
    spoilt = origins([answer(*each, well=rng.random() < 0.5) for each in reports[GOOD:]])
    target = Target("usage.reported.v1", platform.vhost.broker.admin.user)
    wires = mixed(rng, good, spoilt, target, MUTATIONS)

    await publish(platform.vhost, INTERNAL, wires)
    await settled(platform.vhost, USAGE_OUTCOMES_QUEUE, within=300)
    await assert_undisturbed(platform, INGEST, pid, USAGE_OUTCOMES_QUEUE)
    ends = await ends_of(platform, USAGE_OUTCOMES_QUEUE, wires)
    states = {row[0]: row[1] for row in await platform.rows("usage_ingest", STATES)}

    assert_reasons_fit(ends, ANSWERS, ["unknown_report"])
    processed = ends.processed()
    expected = dict.fromkeys(states, "forwarded")
    for event in sorted(
        (read_event(body, ANSWERS) for body in processed), key=lambda event: event.type
    ):
        # `rejected` sorts before `reported`, and only rises to it.
        expected[event.data.report_id] = event.type.split(".")[1]
    assert states == expected
    assert all(processed[each.body()] for each in good)
    assert len(ends.dead) > MUTATIONS / 3
