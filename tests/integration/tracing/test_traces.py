"""A tool run, followed by ids alone from its publisher's trace to the call to Stripe."""

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

from opentelemetry.trace import SpanKind, StatusCode

from nexus_contracts import Event, ToolExecuted
from nexus_messaging.topology import (
    TOOL_EXECUTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_CREATED_QUEUE,
    dead_letter_queue,
)
from stripe_emulator.faults import Fault
from support.events import tool_run, user_created
from support.spans import (
    PUBLISHER,
    TRACE,
    attributes,
    links,
    parent,
    recorded_spans,
    written,
)
from support.waiting import eventually
from usage_ingest.explanation import explain
from usage_ingest.storage.reader import LedgerReader

from .conftest import Services

ACCOUNTS_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REPORTING = f"process {USAGE_RECORDED_QUEUE}"
CALL = "POST /v1/billing/meter_events"
EMAIL = "s3cret@example.com"


def run_of(user: UUID, traceparent: str | None = PUBLISHER) -> Event[ToolExecuted]:
    """Return a run of a minute ago, published with a trace context."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    return tool_run(user, time=past).model_copy(update={"traceparent": traceparent})


async def provisioned(services: Services, traceparent: str | None = None) -> tuple[UUID, str]:
    """Publish a user; return it and its customer once that is known."""
    user = uuid4()
    event = user_created(user, EMAIL).model_copy(update={"traceparent": traceparent})
    await services.vhost.publish(event)
    query = f"SELECT stripe_customer_id FROM billing_accounts WHERE user_id = '{user}'"  # noqa: S608 - a UUID
    found = await eventually(lambda: services.rows(query), bool)
    return user, str(found[0][0])


async def reported(services: Services, number: int = 1) -> None:
    """Wait until so many reports are counted."""
    query = "SELECT count(*) FROM usage_reports WHERE state = 'reported'"
    await eventually(lambda: services.rows(query), lambda rows: rows[0][0] == number, within=40)


async def test_run_is_traced_from_its_publisher_to_stripe(services: Services) -> None:
    """Spans are linked where many become one, and parent and child where one follows one."""
    with recorded_spans() as spans:
        user, _ = await provisioned(services)
        run = run_of(user)
        await services.vhost.publish(run)
        await reported(services)
        (applied,) = await spans.until(f"process {USAGE_OUTCOMES_QUEUE}")

    record = spans.one(f"process {TOOL_EXECUTED_QUEUE}")
    claim, relay = spans.one("claim usage"), spans.one("publish internal:usage.recorded.v1")
    report, call = spans.one(REPORTING), spans.one(CALL)
    outcome = spans.one("publish internal:usage.reported.v1")
    assert links(record) == links(claim) == [PUBLISHER]
    assert links(relay) == [written(claim.context)]
    assert [parent(each) for each in (record, claim, relay, applied)] == [None] * 4
    assert parent(report) == written(relay.context)
    assert parent(call) == parent(outcome) == written(report.context)
    assert links(applied) == [written(outcome.context)]
    assert [each.kind for each in (record, claim, relay, report, call, outcome)] == [
        SpanKind.CONSUMER,
        SpanKind.INTERNAL,
        SpanKind.PRODUCER,
        SpanKind.CONSUMER,
        SpanKind.CLIENT,
        SpanKind.PRODUCER,
    ]
    report_id = attributes(relay)["messaging.message.id"]
    assert record.links[0].attributes == {"messaging.message.id": str(run.id)}
    assert attributes(claim) == {"nexus.events": 1, "nexus.reports": 1}
    assert attributes(call)["nexus.report.identifier"] == f"nexus:{report_id}"
    assert (attributes(call)["nexus.answer"], attributes(call)["http.response.status_code"]) == (
        "accepted",
        200,
    )


async def test_user_is_traced_from_its_publisher_to_its_customer(services: Services) -> None:
    """Also through the database: the announcement takes the trace from the row."""
    with recorded_spans() as spans:
        await provisioned(services, ACCOUNTS_TRACE)
        (kept,) = await spans.until("process usage-ingest.customer-provisioned")

    given = spans.one(f"process {USER_CREATED_QUEUE}")
    created, announced = (
        spans.one("POST /v1/customers"),
        spans.one("publish internal:customer.provisioned.v1"),
    )
    assert parent(given) == ACCOUNTS_TRACE
    assert parent(created) == parent(announced) == written(given.context)
    assert parent(kept) == written(announced.context)
    assert (created.kind, attributes(created)["nexus.answer"]) == (SpanKind.CLIENT, "accepted")
    assert EMAIL not in "".join(span.to_json() for span in spans.all())


async def test_moved_report_stays_in_its_trace(services: Services) -> None:
    """Through a retry, a dead letter and an operator's move; each call has its answer's name."""
    with recorded_spans() as spans:
        user, customer = await provisioned(services)
        fault = {"kind": "server_error", "path_prefix": "/v1/billing/meter_events"}
        services.account.faults.add(Fault.read(fault))
        services.account.customers.delete(customer, services.account.clock.now())
        await services.vhost.publish(run_of(user))
        letters = dead_letter_queue(USAGE_RECORDED_QUEUE)
        await eventually(lambda: services.vhost.depth(letters), bool, within=40)
        services.account.customers._deleted.discard(customer)
        await services.vhost.move(letters, USAGE_RECORDED_QUEUE)
        await reported(services)
        await spans.until(REPORTING, 3)

    relay, works, calls = (
        spans.one("publish internal:usage.recorded.v1"),
        spans.named(REPORTING),
        spans.named(CALL),
    )
    assert [parent(each) for each in works] == [written(relay.context)] * 3
    assert [parent(each) for each in calls] == [written(each.context) for each in works]
    assert [attributes(each)["nexus.answer"] for each in calls] == [
        "server_error",
        "no_such_customer",
        "accepted",
    ]
    assert [each.status.status_code for each in calls] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert [[note.name for note in each.events] for each in works] == [
        ["message_retried"],
        ["message_dead_lettered"],
        [],
    ]


async def test_rows_keep_only_sampled_trace_contexts(services: Services) -> None:
    """Events keep the publisher's context if it is sampled, reports the claim's."""
    with recorded_spans() as spans:
        user, _ = await provisioned(services)
        await services.vhost.publish(
            run_of(user), run_of(user, PUBLISHER[:-1] + "0"), run_of(user, "nonsense")
        )
        await reported(services, 3)

    claims = {written(span.context) for span in spans.named("claim usage")}
    events = await services.rows("SELECT traceparent FROM usage_events")
    reports = await services.rows("SELECT DISTINCT traceparent FROM usage_reports")
    assert sorted(events, key=str) == [(PUBLISHER,), (None,), (None,)]
    assert {context for (context,) in reports} == claims


async def test_explain_shows_the_trace_of_an_event(services: Services) -> None:
    """The event id alone is enough."""
    run = run_of(uuid4())
    with recorded_spans():
        await services.vhost.publish(run)
        reader = LedgerReader(services.ledger)
        of_run = partial(reader.history, run.id, datetime.now(UTC), timedelta(hours=1), None)
        history = await eventually(of_run, bool)

    assert history is not None
    assert f"trace {TRACE}" in list(explain(history))


async def test_trace_is_not_stored_by_default(services: Services) -> None:
    """Also where publishers trace."""
    user, _ = await provisioned(services, ACCOUNTS_TRACE)
    await services.vhost.publish(run_of(user))
    await reported(services)

    stored = await services.rows(
        "SELECT traceparent FROM usage_events UNION ALL SELECT traceparent FROM usage_reports"
    )
    assert stored == [(None,), (None,)]
