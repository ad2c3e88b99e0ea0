"""Messages of every release mean to each consumer what they meant to that release."""

import json
import tomllib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest.mock import AsyncMock, Mock
from uuid import UUID

import pytest

import customer_provisioner.handlers
import stripe_reporter.handlers
import usage_ingest.handlers
from local_stack.catalogue import METER
from nexus_contracts import ALL_EVENTS, EventData, read_event
from nexus_messaging.message import Delivery, Message
from nexus_messaging.router import Handlers, Router
from nexus_messaging.topology import (
    CUSTOMER_PROVISIONED_QUEUE,
    METER_ERRORS_QUEUE,
    STRIPE_CHANGED_QUEUE,
    SUBSCRIPTION_CHANGED_QUEUE,
    TOOL_EXECUTED_QUEUE,
    USAGE_COUNTED_QUEUE,
    USAGE_OUTCOMES_QUEUE,
    USAGE_RECORDED_QUEUE,
    USER_ASSIGNED_QUEUE,
    USER_CREATED_QUEUE,
    USER_UPDATED_QUEUE,
    WORK_QUEUES,
    home_queue,
)
from releases.release import ROOT, Release, committed, named_commit
from stripe_reporter.reports import Report
from support import deliveries
from usage_ingest.entry import Entry
from usage_ingest.metering import BillingRules
from usage_ingest.storage.reports import ReportAnswer

Reader = Callable[[Delivery], Awaitable[Mapping[str, Any]]]

TOKENS: Final = "tokens"
RULES: Final = BillingRules(METER, TOKENS, frozenset({"succeeded"}))
END: Final = datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
"""Now, for the tests: no message is from the future."""

RELEASED: Final = ROOT / "libs/contracts/released"
MESSAGES: Final = sorted(RELEASED.glob("*/messages/*.json"))

by_message = pytest.mark.parametrize(
    "message", MESSAGES, ids=[f"{path.parts[-3]} {path.stem}" for path in MESSAGES]
)


def meaning_of(message: Path) -> dict[str, Any]:
    """Return what the release itself read from its message."""
    path = message.parents[1] / "meanings" / message.name
    meaning: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return meaning


def keeps(meaning: Any, read: Any) -> bool:
    """Return whether all that the release read is read today; later fields may come to it."""
    if isinstance(meaning, dict) and isinstance(read, dict):
        return all(name in read and keeps(meaning[name], read[name]) for name in meaning)
    return bool(meaning == read)


def as_json(data: EventData) -> Mapping[str, Any]:
    """Return data as meanings have them."""
    read: Mapping[str, Any] = json.loads(data.model_dump_json())
    return read


async def read_tool_run(delivery: Delivery) -> Mapping[str, Any]:
    """Read as usage-ingest records."""
    entry = usage_ingest.handlers._read_run(delivery, RULES, END)
    assert isinstance(entry, Entry), entry
    return as_json(entry.event.data)


async def read_answer(delivery: Delivery) -> Mapping[str, Any]:
    """Read as usage-ingest applies the reporter's answers."""
    answer = usage_ingest.handlers._read_answer(delivery)
    assert isinstance(answer, ReportAnswer), answer
    written = json.loads(delivery.body)
    refused = written["type"].startswith("usage.rejected")
    assert answer.state == ("rejected" if refused else "reported")
    return {
        "report_id": str(answer.report_id),
        "identifier": written["data"]["identifier"],  # the ledger goes by the report's id alone
        "at": answer.at.isoformat().replace("+00:00", "Z"),
        "ever_unknown": answer.ever_unknown,
        **({"reason": answer.reason} if refused else {}),
    }


def single(router: Router, queue: str, called: AsyncMock, **provided: Any) -> Reader:
    """Return the reader of a handler of single events; ``called`` is what gets the data."""
    [route] = [each for each in router.routes if each.queue == queue]
    handle = Handlers(provided).single(route)

    async def read(delivery: Delivery) -> Mapping[str, Any]:
        called.reset_mock()
        await handle(delivery)
        [data, *_] = called.await_args.args if called.await_args else [None]
        assert isinstance(data, EventData)
        return as_json(data)

    return read


def readers() -> Mapping[str, Reader]:
    """Return how each consumer reads, by its queue."""
    accounts, subscriptions, counted, profiles, changes, refresher, reporter, rejecter = (
        AsyncMock() for _ in range(8)
    )
    return {
        TOOL_EXECUTED_QUEUE: read_tool_run,
        USAGE_OUTCOMES_QUEUE: read_answer,
        CUSTOMER_PROVISIONED_QUEUE: single(
            usage_ingest.handlers.router,
            CUSTOMER_PROVISIONED_QUEUE,
            accounts.apply,
            accounts=accounts,
            claim=Mock(),
        ),
        USER_ASSIGNED_QUEUE: single(
            usage_ingest.handlers.router,
            USER_ASSIGNED_QUEUE,
            accounts.assign,
            accounts=accounts,
            claim=Mock(),
        ),
        SUBSCRIPTION_CHANGED_QUEUE: single(
            usage_ingest.handlers.router,
            SUBSCRIPTION_CHANGED_QUEUE,
            subscriptions.apply,
            subscriptions=subscriptions,
            periods=AsyncMock(),
            metrics=Mock(),
        ),
        USAGE_COUNTED_QUEUE: single(
            usage_ingest.handlers.router,
            USAGE_COUNTED_QUEUE,
            counted.apply,
            counted=counted,
            metrics=Mock(),
        ),
        USER_CREATED_QUEUE: single(
            customer_provisioner.handlers.router,
            USER_CREATED_QUEUE,
            profiles.keep,
            profiles=profiles,
            provisioner=AsyncMock(),
            metrics=Mock(),
        ),
        USER_UPDATED_QUEUE: single(
            customer_provisioner.handlers.router,
            USER_UPDATED_QUEUE,
            changes.keep,
            profiles=profiles,
            changes=changes,
            follower=AsyncMock(),
            metrics=Mock(),
        ),
        STRIPE_CHANGED_QUEUE: single(
            customer_provisioner.handlers.router,
            STRIPE_CHANGED_QUEUE,
            refresher.follow,
            refresher=refresher,
        ),
        USAGE_RECORDED_QUEUE: single(
            stripe_reporter.handlers.router,
            USAGE_RECORDED_QUEUE,
            reporter.report_usage,
            reporter=reporter,
        ),
        METER_ERRORS_QUEUE: single(
            stripe_reporter.handlers.router,
            METER_ERRORS_QUEUE,
            rejecter.hear,
            rejecter=rejecter,
        ),
    }


def delivery_of(message: Path) -> Delivery:
    """Return the delivery of a message's bytes from the queue of its type."""
    queue = home_queue(meaning_of(message)["type"], "", from_outside=False)
    return deliveries.delivery(Message(message.read_bytes()), queue, "internal")


@by_message
async def test_consumer_reads_the_same_meaning(message: Path) -> None:
    """Outboxes, queues and dead letters hold messages of every release."""
    delivery = delivery_of(message)

    read = await readers()[delivery.queue](delivery)

    assert keeps(meaning_of(message)["data"], read)


def test_every_consumer_is_tried() -> None:
    """A new queue needs its reader here, and a message of each type that a release has."""
    unreleased = {
        USER_UPDATED_QUEUE,
        STRIPE_CHANGED_QUEUE,
        USER_ASSIGNED_QUEUE,
        SUBSCRIPTION_CHANGED_QUEUE,
        USAGE_COUNTED_QUEUE,
        METER_ERRORS_QUEUE,
    }

    assert readers().keys() == set(WORK_QUEUES)
    assert {delivery_of(message).queue for message in MESSAGES} == set(WORK_QUEUES) - unreleased


@pytest.mark.parametrize(
    "message", [path for path in MESSAGES if path.name.startswith("tool.executed.v1")], ids=str
)
def test_tool_run_of_a_release_is_charged_as_it_was(message: Path) -> None:
    """What each meter reads, to whom, when and under which id follow from the release's meaning."""
    meaning = meaning_of(message)
    data = meaning["data"]
    succeeded = {METER: 1} | ({TOKENS: data["token_count"]} if data["token_count"] else {})

    entry = usage_ingest.handlers._read_run(delivery_of(message), RULES, END)

    assert isinstance(entry, Entry)
    assert entry.readings == (succeeded if data["status"] == "succeeded" else {})
    assert entry.event.data.user_id == UUID(data["user_id"])
    assert entry.event.time == datetime.fromisoformat(meaning["time"])
    assert entry.event.id == UUID(meaning["id"])


@pytest.mark.parametrize(
    "message", [path for path in MESSAGES if path.name.startswith("usage.recorded.v1")], ids=str
)
async def test_report_of_a_release_asks_stripe_for_the_same(message: Path) -> None:
    """Meter, value, customer, time and identifier reach the call as the release had them."""
    data = meaning_of(message)["data"]
    router, reporter = stripe_reporter.handlers.router, AsyncMock()
    [route] = [each for each in router.routes if each.queue == USAGE_RECORDED_QUEUE]
    await Handlers({"reporter": reporter}).single(route)(delivery_of(message))

    report = Report.of(reporter.report_usage.await_args.args[0])

    facts = report.facts
    assert report.identifier == data["identifier"]
    assert (facts.meter, facts.value) == (data["meter"], data["value"])
    assert facts.stripe_customer_id == data["stripe_customer_id"]
    assert facts.occurred_at == datetime.fromisoformat(data["occurred_at"])
    assert dict(report.dimensions) == (data["dimensions"] or {})


READ_ALL: Final = """
import json, pathlib, sys
from nexus_contracts import ALL_EVENTS, read_event
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    event = read_event(path.read_bytes(), ALL_EVENTS)
    print(json.dumps([path.name, json.loads(event.model_dump_json())]))
"""


@pytest.mark.long
@pytest.mark.timeout(900)  # it may be the first to build the release
def test_previous_release_reads_what_is_written_today(release: Release, tmp_path: Path) -> None:
    """Its processes run on during an upgrade: each golden message, as our models write it.

    But for events that it does not have: publishers send those once all consumers read them.
    """
    known = {Path(path).stem for path in published_schemas(named_commit())}
    golden = {
        path.name: read_event(path.read_bytes(), ALL_EVENTS)
        for path in (ROOT / "libs/contracts/tests/golden").iterdir()
    }
    events = {name: event for name, event in golden.items() if event.type in known}
    (tmp_path / "written").mkdir()
    for name, event in events.items():
        (tmp_path / "written" / name).write_bytes(event.body())
    (tmp_path / "read_all.py").write_text(READ_ALL)

    script = {"PYTHONPATH": str(tmp_path)}
    printed = release.run("read_all", str(tmp_path / "written"), settings=script)

    read = dict(json.loads(line) for line in printed.splitlines())
    assert read.keys() == events.keys()
    for name, event in events.items():
        assert read[name]["id"] == str(event.id)
        assert keeps(read[name]["data"], as_json(event.data))


@pytest.mark.long
def test_schemas_kept_of_the_previous_release_are_its_own() -> None:
    """Whoever edits them makes a promise that nobody gave."""
    commit = named_commit()
    version = tomllib.loads(committed(commit, "libs/contracts/pyproject.toml"))["project"][
        "version"
    ]
    kept = {path.name: path for path in (RELEASED / version / "schemas").iterdir()}
    published = published_schemas(commit)

    assert {Path(path).name for path in published} == kept.keys()
    for path in published:
        assert kept[Path(path).name].read_text(encoding="utf-8") == committed(commit, path)


def published_schemas(commit: str) -> list[str]:
    """Return the paths of the schemas that a release's commit has."""
    paths = committed(commit).splitlines()
    return [path for path in paths if path.startswith("libs/contracts/schemas/")]
