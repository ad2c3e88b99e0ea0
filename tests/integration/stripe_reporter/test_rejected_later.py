"""Stripe accepts a report, and says later that it does not count it."""

import json
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import uuid4

import pytest
import stripe as sdk
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text

from integration.stripe_reporter.bench import METER, Bench, Running, add_meters
from nexus_contracts import (
    Event,
    MeterErrorsFound,
    UsageRecorded,
    UsageRejected,
    UsageRejectedLater,
    UsageReported,
    read_event,
)
from nexus_messaging.errors import PublishError, PublishTimeoutError
from nexus_messaging.outgoing import OutgoingEvent
from nexus_messaging.publisher import Publisher
from nexus_messaging.topology import INTERNAL, METER_ERRORS_QUEUE, USAGE_OUTCOMES_QUEUE
from stripe_emulator.event_faults import EventFault
from stripe_emulator.faults import Fault
from stripe_reporter.app import routes_of
from stripe_reporter.rejections import Rejection
from stripe_reporter.storage.rejections import Rejections
from stripe_reporter.storage.summaries import Summaries
from support.waiting import eventually

SECRET: Final = "whsec_of_the_tests"
CODE: Final = "meter_event_invalid_value"
EVENTS_PATH: Final = {"path_prefix": "/v2/core/events/", "method": "GET"}
OUTCOMES: Final[list[type[UsageReported | UsageRejected | UsageRejectedLater]]] = [
    UsageReported,
    UsageRejected,
    UsageRejectedLater,
]


def reject_later(bench: Bench, **conditions: Any) -> None:
    """Have Stripe find fault with what it accepts from now on."""
    fault = {"kind": "rejected", "code": CODE, "times": None, **conditions}
    bench.account.later_validation.faults.add(EventFault.read(fault))


def error_reports(bench: Bench) -> list[MeterErrorsFound]:
    """Let Stripe's window pass, and return what its webhooks would say."""
    bench.pass_time(timedelta(seconds=60))
    bench.account.settle()
    return [
        MeterErrorsFound(
            event_id=each["id"],
            event_type=each["type"],
            object_id=(each["related_object"] or each)["id"],
            livemode=False,
            created=bench.now(),
        )
        for each in reversed(bench.account.event_log.listed_thin({})["data"])
    ]


async def hear(bench: Bench, *found: MeterErrorsFound) -> None:
    """Send what a webhook has become."""
    events = [
        Event.of(each, source="stripe-reporter", id=uuid4(), time=bench.now()) for each in found
    ]
    await bench.vhost.publish(*events, exchange=INTERNAL)


async def outcomes(bench: Bench, count: int) -> list[str]:
    """Wait for ``count`` outcomes and return what they are, the oldest first."""
    found = await bench._waiting_in(USAGE_OUTCOMES_QUEUE, count)
    return [read_event(each.body, OUTCOMES).type for each in found]


async def later(bench: Bench, event: Event[UsageRecorded]) -> str | None:
    """Return why Stripe does not count a report after all, as the journal has it."""
    row = await bench.row(event)
    return None if row["rejected_later"] is None else str(row["rejected_later"])


async def round_of(bench: Bench, running: Running) -> float:
    """Have rejections announced; return for how many seconds one has not been, as measured."""
    running.app.wake("settle rejections")
    running.app.wake("measure")
    return bench.registry.get_sample_value("stripe_reporter_oldest_rejection_seconds") or 0.0


async def test_a_sample_rejects_its_report_and_it_is_announced(bench: Bench) -> None:
    """Reported, then rejected later; a neighbour that Stripe counts stays as it is."""
    rejected, counted = bench.report(bench.customer(), 5), bench.report(bench.customer(), 3)
    reject_later(bench, customer=rejected.data.stripe_customer_id)

    async with bench.reporting():
        await bench.send(rejected, counted)
        await bench.outcomes(2)
        [found] = error_reports(bench)
        await hear(bench, found)
        kinds = await outcomes(bench, 3)

    assert kinds[-1] == "usage.rejected_later.v1"
    assert (await later(bench, rejected), await later(bench, counted)) == (CODE, None)
    figures = {
        "meter_errors_total": {},
        "meter_error_samples_total": {"sample": "new"},
        "late_rejections_total": {"verdict": "rejected"},
    }
    for name, labels in figures.items():
        assert bench.registry.get_sample_value(f"stripe_reporter_{name}", labels) == 1
    assert await bench.state(rejected) == "accepted"
    assert bench.counted(rejected.data.stripe_customer_id) == 0


async def test_what_is_heard_twice_or_again_after_a_move_changes_nothing(bench: Bench) -> None:
    """Webhooks come again, and an operator may move the report: it is never sent again."""
    event = bench.report(bench.customer(), 5)
    reject_later(bench)

    async with bench.reporting():
        await bench.send(event)
        await bench.outcomes(1)
        [found] = error_reports(bench)
        await hear(bench, found, found)
        await outcomes(bench, 2)
        await bench.send(event)
        kinds = await outcomes(bench, 3)

    assert kinds[1:] == ["usage.rejected_later.v1"] * 2
    assert bench.attempts(event)["attempts"] == 1


async def test_a_sample_before_the_answer_waits_for_it(bench: Bench) -> None:
    """The answer to the call is lost, and Stripe's duplicate answer does not lift the rejection."""
    event = bench.report(bench.customer(), 5)
    reject_later(bench)
    bench.fault("server_error", when="after")

    async with bench.reporting():
        await bench.send(event)
        await eventually(lambda: bench.state(event), lambda state: state == "unknown")
        [found] = error_reports(bench)
        await hear(bench, found)
        kinds = await outcomes(bench, 2)

    assert kinds == ["usage.reported.v1", "usage.rejected_later.v1"]
    assert (await bench.row(event))["answer"] == "duplicate"


async def test_a_key_of_anothers_form_does_not_hide_what_else_an_event_says(bench: Bench) -> None:
    """Another sender numbers its attempts from 0, in the same error report."""
    event = bench.report(bench.customer(), 5)
    reject_later(bench)
    bench.account.record_event(
        {
            "event_name": METER,
            "payload": {"stripe_customer_id": event.data.stripe_customer_id, "value": "1"},
            "idempotency_key": "order-7:0",
        }
    )

    async with bench.reporting():
        await bench.send(event)
        await bench.outcomes(1)
        await hear(bench, *error_reports(bench))
        kinds = await outcomes(bench, 2)

    assert kinds[-1] == "usage.rejected_later.v1"
    assert await later(bench, event) == CODE


async def test_the_hours_of_errors_are_read_though_meters_were_not_listed_at_once(
    bench: Bench,
) -> None:
    """Samples are not all: what else was rejected is only seen in the sums."""
    event = bench.report(bench.customer(), 5, occurred_at=bench.now() - timedelta(days=20))
    reject_later(bench)
    where = {"path_prefix": "/v1/billing/meters", "method": "GET", "times": 2}
    bench.account.faults.add(Fault.read({"kind": "html_503", **where}))

    async with bench.reporting():
        await bench.send(event)
        await bench.outcomes(1)
        found = error_reports(bench)
        bench.pass_time(timedelta(hours=30))
        await hear(bench, *found)
        await outcomes(bench, 2)
        await eventually(lambda: bench.vhost.depth(METER_ERRORS_QUEUE), lambda depth: depth == 0)
        async with bench.database() as database:
            summaries = Summaries(database, lag=timedelta(hours=1))
            await summaries.follow(bench.now())
            query = text("SELECT since FROM summaries_due")
            oldest = (await database.run(lambda c: c.execute(query))).scalar_one()

    assert oldest == event.data.occurred_at


async def test_the_interval_of_errors_without_samples_is_read(bench: Bench) -> None:
    """Of all who used that meter since: any of them may be among the errors."""
    add_meters(bench, 1)
    rejected = bench.report(bench.customer())
    reject_later(bench, sampled=0, customer=rejected.data.stripe_customer_id)
    query = text("SELECT meter FROM summaries_due WHERE since = :began")

    async with bench.reporting(), bench.database() as database:
        await bench.send(rejected, bench.report(bench.customer(), meter="other_0"))
        await bench.outcomes(2)
        [found] = error_reports(bench)
        await Summaries(database, lag=timedelta(hours=1)).follow(bench.now() + timedelta(minutes=2))
        began = (bench.now() - timedelta(days=9)).replace(microsecond=0)
        bench.account.event_log.get(found.event_id)["data"]["validation_start"] = began.isoformat()
        await hear(bench, found)

        async def meters() -> list[str]:
            rows = await database.run(lambda c: c.execute(query, {"began": began}))
            return [row.meter for row in rows]

        assert await eventually(meters, bool) == [METER]


async def test_errors_of_others_and_events_that_are_gone_harm_nothing(bench: Bench) -> None:
    """Another sender's request, a meter that nobody knows, an event that Stripe has no more."""
    customer = bench.customer()
    reject_later(bench)
    bench.account.record_event(
        {
            "event_name": METER,
            "payload": {"stripe_customer_id": customer, "value": "1"},
            "idempotency_key": "a-key-of-somebody",
        }
    )
    reject_later(bench, code="no_meter")
    missing = MeterErrorsFound(
        event_id="evt_gone",
        event_type="v1.billing.meter.no_meter_found",
        object_id="evt_gone",
        livemode=False,
        created=bench.now(),
    )

    async with bench.reporting():
        await hear(bench, *error_reports(bench), missing)
        letters = await eventually(
            lambda: bench.vhost.dead_letters(METER_ERRORS_QUEUE), lambda found: len(found) == 1
        )
        await eventually(lambda: bench.vhost.depth(METER_ERRORS_QUEUE), lambda depth: depth == 0)
        event = bench.report(bench.customer())
        await bench.send(event)
        await bench.outcomes(1)

    assert letters[0].headers["nexus-reason"] == "refused_by_stripe"
    sample = bench.registry.get_sample_value(
        "stripe_reporter_meter_error_samples_total", {"sample": "foreign"}
    )
    assert sample == 1


async def test_what_cannot_be_fetched_is_fetched_later_while_reports_go_on(bench: Bench) -> None:
    """A key without the right to read events stops no report, and no error is missed."""
    event = bench.report(bench.customer(), 5)
    reject_later(bench)
    forbidden = {"kind": "status", "status": 403, "times": 2}
    bench.account.faults.add(Fault.read({**forbidden, **EVENTS_PATH}))

    async with bench.reporting() as running:
        await bench.send(event)
        await bench.outcomes(1)
        await hear(bench, *error_reports(bench))
        await outcomes(bench, 2)
        assert running.circuit.cause is None

    assert await later(bench, event) == CODE


@pytest.mark.parametrize("status", [400, 404])
async def test_a_gateways_refusal_loses_no_error_report(bench: Bench, status: int) -> None:
    """Only Stripe itself knows that an event is gone."""
    event = bench.report(bench.customer(), 5)
    reject_later(bench)
    gateway = {"kind": "foreign", "status": status, "body": "<html></html>", "times": 2}
    bench.account.faults.add(Fault.read({**gateway, **EVENTS_PATH}))

    async with bench.reporting():
        await bench.send(event)
        await bench.outcomes(1)
        await hear(bench, *error_reports(bench))
        await outcomes(bench, 2)

    assert await later(bench, event) == CODE


async def test_an_answer_that_is_another_event_rejects_nothing(bench: Bench) -> None:
    """Fetched again, the event names what Stripe really does not count."""
    rejected, counted = bench.report(bench.customer(), 5), bench.report(bench.customer(), 3)
    reject_later(bench, customer=rejected.data.stripe_customer_id)

    async with bench.reporting():
        await bench.send(rejected, counted)
        await bench.outcomes(2)
        [found] = error_reports(bench)
        body = json.dumps(bench.account.event_log.get(found.event_id) | {"id": "evt_another"})
        body = body.replace(rejected.data.identifier, counted.data.identifier)
        another = {"kind": "foreign", "status": 200, "body": body, "request_id": True}
        bench.account.faults.add(Fault.read({**another, **EVENTS_PATH}))
        await hear(bench, found)
        await outcomes(bench, 3)

    assert (await later(bench, rejected), await later(bench, counted)) == (CODE, None)


async def test_what_the_broker_does_not_confirm_is_announced_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger takes the report for counted meanwhile, and a metric says for how long."""
    event = bench.report(bench.customer(), 5)
    rejection = Rejection(event.data.identifier, 1, CODE)
    tried: list[OutgoingEvent] = []

    async def unconfirmed(
        _publisher: Publisher, sendings: Sequence[OutgoingEvent]
    ) -> list[PublishError | None]:
        tried.extend(sendings)
        return [PublishTimeoutError("no confirm") for _ in sendings]

    async with bench.reporting() as running, bench.database() as database:
        await bench.send(event)
        await bench.outcomes(1)
        with monkeypatch.context() as broker:
            broker.setattr("stripe_reporter.rejecting.send_all", unconfirmed)
            await Rejections(database).keep([rejection], bench.now())
            await eventually(partial(round_of, bench, running), lambda _: len(tried) > 1)
            bench.pass_time(timedelta(hours=1))
            waiting = await eventually(partial(round_of, bench, running), lambda age: age > 60)
        await eventually(partial(round_of, bench, running), lambda age: age == 0)
        kinds = await outcomes(bench, 2)

    assert kinds[-1] == "usage.rejected_later.v1"
    assert 3600 <= waiting < 4000


async def test_more_rejections_than_a_round_takes_are_all_announced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: the next interval is long away, and samples may come by the thousand."""
    for module in ("rejecting", "storage.rejections"):
        monkeypatch.setattr(f"stripe_reporter.{module}.MAX_REJECTIONS", 2)
    monkeypatch.setattr("stripe_reporter.app.SETTLE_SECONDS", 600)
    events = [bench.report(bench.customer(), 5) for _ in range(5)]
    reject_later(bench)

    async with bench.reporting():
        await bench.send(*events)
        await bench.outcomes(5)
        await hear(bench, *error_reports(bench))
        kinds = await outcomes(bench, 10)

    assert kinds[5:] == ["usage.rejected_later.v1"] * 5


def thin_event(id_: str, kind: str, *, livemode: bool = False) -> str:
    """Return the body of a webhook about a meter."""
    event = {
        "id": id_,
        "object": "v2.core.event",
        "type": f"v1.billing.meter.{kind}",
        "livemode": livemode,
        "created": "2026-03-01T12:00:00Z",
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/"},
    }
    return json.dumps(event)


async def test_the_endpoint_takes_what_stripe_signed(bench: Bench) -> None:
    """Both kinds of errors become messages of ours; what is forged or of live mode is refused."""
    errors = thin_event("evt_1", "error_report_triggered")
    signature = sdk.WebhookSignature.generate_signature_header(errors, SECRET)
    requests = [(errors, signature.replace("v1=", "v1=0"), 400), (errors, signature, 200)]
    for body, status in (
        (thin_event("evt_2", "no_meter_found"), 200),
        (thin_event("evt_3", "updated"), 200),
        (thin_event("evt_4", "no_meter_found", livemode=True), 403),
    ):
        signature = sdk.WebhookSignature.generate_signature_header(body, SECRET)
        requests.append((body, signature, status))
    settings = bench.settings(stripe_webhook_secret=SECRET)

    async with bench.reporting() as running:
        served = web.Application()
        served.add_routes(routes_of(settings, running.app))
        async with TestClient(TestServer(served)) as client:
            for body, signature, status in requests:
                headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
                answer = await client.post("/webhooks/stripe", data=body, headers=headers)
                assert answer.status == status
        letters = await eventually(
            lambda: bench.vhost.dead_letters(METER_ERRORS_QUEUE), lambda found: len(found) == 2
        )

    found = [read_event(each.body, [MeterErrorsFound]).data for each in letters]
    assert {each.event_id for each in found} == {"evt_1", "evt_2"}
    assert {each.object_id for each in found} == {"mtr_1"}


async def test_a_reporter_of_live_mode_takes_live_webhooks_alone(bench: Bench) -> None:
    """The mode is that of its key."""
    settings = bench.settings(stripe_webhook_secret=SECRET, stripe_secret_key="sk_live_reporter")

    async with bench.reporting() as running:
        served = web.Application()
        served.add_routes(routes_of(settings, running.app))
        async with TestClient(TestServer(served)) as client:
            for livemode, status in ((False, 403), (True, 200)):
                body = thin_event("evt_1", "updated", livemode=livemode)
                signature = sdk.WebhookSignature.generate_signature_header(body, SECRET)
                headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
                answer = await client.post("/webhooks/stripe", data=body, headers=headers)
                assert answer.status == status
