"""The page that ``up`` prints: addresses, how to publish, how to requeue a dead letter."""

import json
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from local_stack.catalogue import PUBLISHER
from local_stack.monitoring import Monitoring
from local_stack.publishing import tool_executed, user_created
from local_stack.sample_dead_letter import DEAD_LETTER_QUEUE, QUEUE, SampleDeadLetter
from local_stack.sql import postgres_programs
from local_stack.stack import Stack

Row = tuple[str, str]

QUERIES = {
    "how many seconds usage has waited for Stripe": (
        "max by (state) (usage_ingest_oldest_report_seconds)"
    ),
    "what became of tool runs": "sum by (outcome) (usage_ingest_events_total) > 0",
    "what waits for a person": "queue:dead_letters:sum > 0",
}
"""Queries for Prometheus, by what they show."""

COMMANDS = (
    "usage-ingest explain EVENT_ID",
    "usage-ingest usage USER_ID",
    "usage-ingest status",
    "usage-ingest reconcile",
    "customer-provisioner find EMAIL",
)
"""What operators ask first."""


def addresses(stack: Stack, directory: Path) -> tuple[Row, ...]:
    """List the addresses of every part, with the logins."""
    operator = stack.operator
    return (
        ("management UI", f"{stack.broker.management_url}  {operator.user} / {operator.password}"),
        ("broker metrics", stack.broker.metrics_url),
        *_prometheus(stack.monitoring),
        *(
            (name, f"{server.url}/metrics  {server.url}/readyz")
            for name, server in stack.services.items()
        ),
        ("local Stripe", f"{sums_url(stack)}  key {stack.stripe_key}"),
        *((f"{name}'s database", stack.database_url(name)) for name in stack.services),
        ("psql", str(postgres_programs() / "psql")),
        ("publish to", stack.amqp_url(PUBLISHER)),
        *_events_api(stack),
        *_usage_api(stack),
        ("logs", str(directory / "logs")),
    )


def sums_url(stack: Stack) -> str:
    """Return the address of the sums that the local Stripe has counted."""
    return f"{stack.emulator_url}/_emulator/sums"


def advice(stack: Stack, letter: SampleDeadLetter, directory: Path) -> tuple[str, ...]:
    """Say how to publish and how to requeue, in lines to copy from."""
    return (
        "To publish a user and a tool run of theirs, as an outside service does:",
        f"  {_command(directory)} publish",
        *_by_http(stack),
        "",
        "To run an operator's command on this stack, such as these:",
        *(f"  {_command(directory)} run {command}" for command in COMMANDS),
        *_queries(stack.monitoring),
        "",
        _requeue_lines(letter) if letter.arrived else _not_arrived(stack),
    )


def page(rows: Sequence[Row], lines: Iterable[str]) -> str:
    """Write ``rows`` in two columns with ``lines`` below them."""
    width = max(len(name) for name, _ in rows)
    table = (f"  {name:<{width}}  {value}" for name, value in rows)
    return "\n".join(["", *table, "", *lines])


def _prometheus(monitoring: Monitoring) -> Iterator[Row]:
    if monitoring.url is not None:
        yield "Prometheus", f"{monitoring.url}/graph  alerts: {monitoring.alerts_url}"


def _events_api(stack: Stack) -> Iterator[Row]:
    if stack.events_api is not None:
        # The names that the pages and the clients use.
        yield "events API", f"METERING_URL={stack.events_api.url} METERING_KEY={stack.api_key}"


def _usage_api(stack: Stack) -> Iterator[Row]:
    if stack.usage_api is not None:
        yield "usage API", f"{stack.usage_api.url}/v1/usage?user=ID  key {stack.api_key}"
    if stack.page is not None:
        yield "usage page", stack.page.url


def _by_http(stack: Stack) -> Iterator[str]:
    """Yield two requests by curl: a user, and a tool run of theirs."""
    if stack.events_api is None:
        return
    user, now = uuid.uuid4(), datetime.now(UTC)
    url = f"{stack.events_api.url}/v1/events"
    yield ""
    yield "The same by HTTP, a user and then a tool run of theirs:"
    for event in (user_created(user, now), tool_executed(user, now)):
        yield _curl(stack, url, event.body.decode())
    yield "Within about 20 s the local Stripe has counted the run:"
    yield f"  curl -s {sums_url(stack)}"
    yield ""
    yield "To have a user's customer made at Stripe and see its id at once:"
    customer = json.dumps({"user_id": str(uuid.uuid4()), "email": "grace@example.com"})
    yield _curl(stack, f"{stack.http_url('customer-provisioner')}/v1/customers", customer)


def _curl(stack: Stack, url: str, body: str) -> str:
    key, content = f"Authorization: Bearer {stack.api_key}", "Content-Type: application/json"
    return f"  curl {url} -H '{key}' -H '{content}' -d '{body}'"


def _queries(monitoring: Monitoring) -> Iterator[str]:
    if monitoring.url is not None:
        yield ""
        yield f"To ask Prometheus, on {monitoring.url}/graph:"
        width = max(map(len, QUERIES.values()))
        yield from (f"  {query:<{width}}  {shows}" for shows, query in QUERIES.items())


def _requeue_lines(letter: SampleDeadLetter) -> str:
    since = f"{letter.accepted_from.astimezone():%H:%M:%S}"
    return (
        "A dead letter to practise on: a run whose publisher's clock was minutes ahead."
        f" In the management UI, under Queues, {DEAD_LETTER_QUEUE}:\n"
        "  1. Get messages: its headers name the reason and the queue to move it to\n"
        f"  2. Move messages, destination queue: {QUEUE}\n"
        f"  3. Moved after {since}, it is recorded, and billed once its time has come;"
        " before that, it is dead-lettered again"
    )


def _not_arrived(stack: Stack) -> str:
    log = stack.services["usage-ingest"].log
    return f"The dead letter to practise on has not arrived in {DEAD_LETTER_QUEUE}: see {log}"


def _command(directory: Path) -> str:
    program = Path(sys.executable).with_name("local-stack")
    return f"{_from_here(program)} --directory {_from_here(directory)}"


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
