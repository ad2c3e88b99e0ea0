"""A host whose disk, clock, callback or arguments are in trouble: it goes on, and it is said."""

import asyncio
import logging
import os
import re
import resource
import threading
import time
from collections import UserDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from aiohttp import web
from typing_extensions import override

from integration.publisher.conftest import RUN, Host
from local_stack.ports import LOOPBACK, free_ports
from nexus_publisher import Dropped, DropReason, InMemory, Publisher, Stored, delivery, spool_file
from nexus_publisher.answers import BatchAnswer
from nexus_publisher.entries import Entry
from nexus_publisher.http import HttpSender, HttpTransport
from nexus_publisher.prometheus import PublisherCollector
from support.events_api_stand_in import EventsApi, accept, refuse
from support.hosts import OTHER_LOOPBACK, SilentServer, silent_server
from support.waiting import eventually

Start = Callable[..., Host]

MIB = 1024 * 1024
AT_ONCE = 1.0
"""Seconds for a call on a busy machine; alone, one takes less than a thousandth."""


@pytest.fixture(autouse=True)
def opened_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a spool that can't be opened alone for a tenth of a second."""
    monkeypatch.setattr(spool_file, "RETRY_SECONDS", 0.1)


@pytest.fixture
def away() -> HttpTransport:
    """Return a transport to an API that is not there."""
    [port] = free_ports(None)
    return HttpTransport(f"http://{LOOPBACK}:{port}", "a-key")


@pytest.fixture
async def silent() -> AsyncIterator[SilentServer]:
    """Return a server that accepts connections and says nothing."""
    async with silent_server() as server:
        yield server


async def test_a_full_disk_keeps_events_in_memory_and_sends_them(
    start: Start, api: EventsApi
) -> None:
    """No file can grow any more: not the database, nor its log."""
    host = start()
    stored = host.run()
    assert await host.publisher.aflush(10)

    with _files_of_at_most(0):
        results = [host.run() for _ in range(50)]
        await api.has(*(str(result.event_id) for result in results))

    assert isinstance(stored, Stored)
    assert {type(result) for result in results} <= {InMemory, Stored}
    assert InMemory in {type(result) for result in results}
    assert isinstance(host.run(), Stored | InMemory)
    assert await host.publisher.aflush(10)
    assert host.dropped == []


async def test_memory_moves_to_the_spool_as_soon_as_that_can_be_written(
    start: Start, away: HttpTransport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder can't be made at first; both changes are logged, once each."""
    caplog.set_level(logging.INFO)
    (tmp_path / "spool").write_text("a file in the way")
    host = start(transport=away)
    results = [host.run() for _ in range(3)]
    await _until(lambda: "can't be used" in caplog.text)

    (tmp_path / "spool").unlink()

    await _until(lambda: host.publisher.stats().spooled == 3)
    assert {type(result) for result in results} == {InMemory}
    assert host.publisher.stats().in_memory == 0
    lines = [each.getMessage() for each in caplog.records if "spool" in each.getMessage()]
    assert lines == [
        "the spool can't be used, events wait in memory: FileExistsError",
        "the spool is used again",
    ]


async def test_memory_moves_to_the_spool_while_a_batch_waits_for_its_answer(
    start: Start, silent: SilentServer, tmp_path: Path
) -> None:
    """The other side takes half a minute and says nothing: until then a kill must lose nothing."""
    (tmp_path / "spool").write_text("a file in the way")
    host = start(transport=_transport_to(silent))
    host.run()
    await _until(lambda: silent.accepted > 0)

    (tmp_path / "spool").unlink()

    await _until(lambda: host.publisher.stats().spooled == 1)


async def test_only_a_full_spool_and_a_full_memory_drop(
    start: Start, away: HttpTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """Each loss is counted and reported with its event; the log has one line for all of them."""
    host = start(transport=away, spool_bytes=MIB // 4, memory_bytes=MIB // 8)

    results = [host.run(metadata={"text": "x" * 1000}) for _ in range(400)]

    dropped = [result for result in results if isinstance(result, Dropped)]
    kept = {Stored: 0, InMemory: 0} | {type(each): 1 for each in results}
    assert kept[Stored]
    assert kept[InMemory]
    assert {each.reason for each in dropped} == {DropReason.FULL}
    assert dropped == host.dropped
    assert all(each.body is not None for each in dropped)
    stats = host.publisher.stats()
    assert stats.dropped[DropReason.FULL] == len(dropped) == 400 - stats.recorded
    assert len([each for each in caplog.records if "is dropped" in each.getMessage()]) == 1


async def test_a_callback_that_raises_harms_nobody(start: Start) -> None:
    """Neither the caller nor the thread that delivers."""

    def fail(_: Dropped) -> None:
        raise RuntimeError("the host's bug")

    host = start(on_drop=fail)

    assert isinstance(host.run(user_id="nobody"), Dropped)
    assert isinstance(host.run(), Stored)
    assert await host.publisher.aflush(10)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        RUN | {"user_id": None},
        RUN | {"user_id": "blue"},
        RUN | {"colour": "blue"},
        RUN | {"time": "noon"},
    ],
    ids=["missing", "of a wrong type", "no UUID", "unknown", "no time"],
)
async def test_wrong_arguments_are_a_result(start: Start, arguments: dict[str, object]) -> None:
    """Not an exception in the host's request; the result names what is wrong, without a value."""
    host = start()

    result = host.publisher.tool_executed(**arguments)  # type: ignore[arg-type]

    assert isinstance(result, Dropped)
    assert result.reason is DropReason.INVALID
    assert re.search(r"^(user_id|time): must|argument:? '(user_id|colour)'", result.detail)
    assert "blue" not in result.detail
    assert host.dropped == [result]


async def test_a_clock_that_is_set_back_delays_nothing(
    start: Start, api: EventsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids stay unique, pauses run on another clock, and no age is negative."""
    host = start()
    first = host.run()
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() - 86_400)
    monkeypatch.setattr("time.time_ns", lambda: int((real() - 86_400) * 1e9))

    later = host.run()
    age = host.publisher.stats().oldest_seconds

    await api.has(str(first.event_id), str(later.event_id))
    assert age is None or age >= 0
    assert later.event_id < first.event_id


async def test_a_damaged_spool_is_set_aside_and_the_host_goes_on(
    start: Start, api: EventsApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and counted, and the file is kept."""
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "events-1.sqlite").write_bytes(os.urandom(9000))
    host = start()

    result = host.run()

    assert isinstance(result, Stored)
    await api.has(str(result.event_id))
    assert host.publisher.stats().spools_set_aside == 1
    assert "the spool was damaged and is set aside as" in caplog.text
    assert (folder / "events-1.damaged").stat().st_size == 9000


async def test_a_call_returns_at_once_while_nobody_answers(
    start: Start, silent: SilentServer
) -> None:
    """The other side accepts connections and says nothing; a task in a loop is not held up."""
    host = start(transport=_transport_to(silent))
    host.run()
    await _until(lambda: silent.accepted > 0)

    began = time.monotonic()
    for _ in range(20):
        host.run()

    assert time.monotonic() - began < AT_ONCE


async def test_after_close_events_are_stored_for_the_next_process(
    start: Start, api: EventsApi
) -> None:
    """Without a spool there is nowhere to keep them, which the result says."""
    durable, fleeting = start(), start(spool=None)
    await durable.publisher.aclose()
    await fleeting.publisher.aclose()

    stored, dropped = durable.run(), fleeting.run()

    assert isinstance(stored, Stored)
    assert isinstance(dropped, Dropped)
    assert dropped.reason is DropReason.CLOSED
    assert await start().publisher.aflush(10)
    assert api.ids == [str(stored.event_id)]


async def test_closing_reports_what_could_not_be_sent(start: Start, away: HttpTransport) -> None:
    """The deadline passes, the call returns, and each event that was only in memory is named."""
    host = start(transport=away, spool=None)
    results = [host.run() for _ in range(3)]
    began = time.monotonic()

    await host.publisher.aclose()

    assert time.monotonic() - began < 10
    assert {(each.event_id, each.reason) for each in host.dropped} == {
        (result.event_id, DropReason.CLOSED) for result in results
    }


async def test_a_defect_delays_deliveries_once(
    start: Start, api: EventsApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw is logged; after a pause it is as if it had not been."""
    monkeypatch.setattr(delivery, "DEFECT_SECONDS", 0.1)
    host = start()
    host.run()
    assert await host.publisher.aflush(10)
    send = HttpSender.send

    async def fail(_: HttpSender, __: Sequence[Entry]) -> BatchAnswer:
        monkeypatch.setattr(HttpSender, "send", send)
        raise LookupError("a defect")

    monkeypatch.setattr(HttpSender, "send", fail)
    for _ in range(3):
        host.run()
        assert await host.publisher.aflush(10)
        await asyncio.sleep(2 * delivery.GATHER_SECONDS)  # the thread rests, and is woken again

    assert len(api.accepted) == 4
    assert [each.getMessage()[:27] for each in caplog.records] == ["the delivery failed: Lookup"]


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_callback_cannot_end_deliveries(
    start: Start, api: EventsApi, error: type[BaseException]
) -> None:
    """It runs in the thread that delivers if the API refuses an event."""

    def fail(_: Dropped) -> None:
        raise error

    host = start(on_drop=fail)
    api.answer = lambda batch: (
        refuse(0) if batch[0]["data"]["tool_name"] == "bad" else accept(batch)
    )
    host.run(tool_name="bad")
    assert await host.publisher.aflush(10)

    later = host.run()

    await api.has(str(later.event_id), within=10)


async def test_log_handlers_that_raise_harm_nobody(start: Start, api: EventsApi) -> None:
    """Neither a caller nor deliveries, whose outage is logged."""

    class Broken(logging.Handler):
        @override
        def emit(self, _: logging.LogRecord) -> None:
            raise RuntimeError("the host's bug")

    broken, logger = Broken(), logging.getLogger("nexus_publisher")
    host = start()
    api.answer = lambda _: web.Response(status=503)
    logger.addHandler(broken)
    try:
        assert isinstance(host.run(user_id="nobody"), Dropped)
        result = host.run()
        await _until(lambda: len(api.requests) > 0)
        api.answer = accept
        await api.has(str(result.event_id), within=10)
        assert await host.publisher.aflush(5)
    finally:
        logger.removeHandler(broken)
    assert api.ids == [str(result.event_id)]


async def test_a_closed_publisher_leaves_the_spool_to_others(
    start: Start, silent: SilentServer, api: EventsApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed in the middle of a batch; another publisher, here of the same process, goes on."""
    monkeypatch.setattr(delivery, "POLL_SECONDS", 0.1)
    closed = start(transport=_transport_to(silent))
    result = closed.run()
    await _until(lambda: silent.accepted > 0)
    await closed.publisher.aclose()
    await asyncio.sleep(3 * delivery.POLL_SECONDS)  # what still runs has looked at the spool

    start()

    await api.has(str(result.event_id), within=5)


async def test_closing_stores_what_the_thread_could_not(
    start: Start, api: EventsApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The look-up of a host name may hold up the thread for long; the disk is there again."""
    holding, over, send = threading.Event(), threading.Event(), HttpSender.send

    async def look_up(_: HttpSender, __: Sequence[Entry]) -> BatchAnswer:
        holding.set()
        over.wait(20)
        return BatchAnswer()

    (tmp_path / "spool").write_text("a file in the way")
    host = start()
    monkeypatch.setattr(HttpSender, "send", look_up)
    result = host.run()
    assert isinstance(result, InMemory)
    assert await asyncio.to_thread(holding.wait, 10)
    (tmp_path / "spool").unlink()

    await host.publisher.aclose()
    monkeypatch.setattr(HttpSender, "send", send)
    over.set()

    assert host.dropped == []
    assert await start().publisher.aflush(10)
    assert api.ids == [str(result.event_id)]


async def test_the_spool_stays_where_it_is_if_the_host_goes_elsewhere(
    start: Start, away: HttpTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon changes its folder to the root after it began."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    host = start(transport=away, spool=Path("spool"))
    host.run()

    monkeypatch.chdir("elsewhere")
    host.run()

    assert host.publisher.stats().spooled == 2
    assert not (tmp_path / "elsewhere" / "spool").exists()


async def test_metadata_that_cannot_be_read_costs_no_run(start: Start) -> None:
    """Such as a row of a database whose session is closed."""

    class Unreadable(dict[str, object]):
        @override
        def keys(self) -> NoReturn:
            raise LookupError("the session is closed")

        __iter__ = items = keys

    host = start()

    for metadata in (UserDict({"a": 1}), _Closed(), {"a": _Closed()}, {"a": Unreadable()}):
        result = host.run(metadata=metadata)
        assert isinstance(result, Stored), metadata.__class__
        assert result.metadata_left_out == (not isinstance(metadata, UserDict))


async def test_prometheus_gets_every_figure(start: Start, api: EventsApi) -> None:
    """Names and reasons are stable: alerts are written on them."""
    host = start()
    host.run()
    host.run(user_id="nobody")
    assert await host.publisher.aflush(10)
    assert len(api.ids) == 1

    metrics = list(PublisherCollector(host.publisher).collect())

    figures = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics
        for sample in metric.samples
    }
    assert figures["nexus_publisher_recorded_total",] == 1
    assert figures["nexus_publisher_confirmed_total",] == 1
    assert figures["nexus_publisher_dropped_total", "invalid"] == 1
    assert figures["nexus_publisher_waiting_events", "spool"] == 0
    assert figures["nexus_publisher_waiting_events", "memory"] == 0
    assert figures["nexus_publisher_oldest_wait_seconds",] == 0
    assert figures["nexus_publisher_spool_bytes",] > 0


def test_wrong_settings_are_found_at_the_start() -> None:
    """What could never work is an error of whoever sets it up; it repeats no secret."""
    with pytest.raises(ValueError, match="source"):
        Publisher(HttpTransport("http://localhost", "key"), source="")
    for url, key in (("ftp://localhost", "key"), ("http://u:s3cret@h", "key"), ("http://h", "\n")):
        with pytest.raises(ValueError, match="events API") as caught:
            HttpTransport(url, key)
        assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(HttpTransport("http://localhost", "s3cret"))


class _Closed(Mapping[str, object]):
    """A mapping that can't be read any more."""

    @override
    def __getitem__(self, _: str) -> NoReturn:
        raise LookupError("the session is closed")

    @override
    def __len__(self) -> NoReturn:
        raise LookupError("the session is closed")

    @override
    def __iter__(self) -> NoReturn:
        raise LookupError("the session is closed")


def _transport_to(server: SilentServer) -> HttpTransport:
    return HttpTransport(f"http://{OTHER_LOOPBACK}:{server.port}", "a-key")


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """Refuse to this process every write beyond ``size`` bytes of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def _until(holds: Callable[[], bool]) -> None:
    async def ask() -> bool:
        return holds()

    await eventually(ask, bool)
