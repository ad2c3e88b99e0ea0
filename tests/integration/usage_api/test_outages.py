"""The database is away, silent or slow: 503 with `Retry-After`, and the API stays up."""

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from yarl import URL

from local_stack.ports import free_ports
from nexus_database import Database
from nexus_database.connecting import READER_SETTINGS
from support.databases import opened
from support.line import Line
from support.usage_ledger import UsageLedger
from support.waiting import eventually
from usage_ingest.usage_api.http import USAGE_AT_ONCE

from .conftest import Answer, Api, running_api


async def status(api: Api) -> int:
    """Return the status of a valid request."""
    return (await api.get("/v1/usage", api.signer.token(uuid4()))).status


async def test_it_starts_without_the_database_and_finds_it(
    urls: tuple[str, str], key_set: Path
) -> None:
    """503 until it is there, and nothing is restarted."""
    url, [port] = URL(urls[1]), free_ports(None)
    async with (
        Database(str(url.with_port(port)), name="usage-api", only_reads=True) as reader,
        running_api(reader, key_set) as api,
    ):
        away = await api.get(f"/v1/entitlements/{uuid4()}")
        ready = await api.get("/readyz", None)
        async with Line.to(url, port=port):
            await eventually(lambda: status(api), lambda found: found == 200)
            found = await api.get("/readyz", None)

    assert (away.status, away.body["code"]) == (503, "database_unavailable")
    assert away.headers["Retry-After"] == "5"
    assert (ready.status, found.status) == (503, 200)


async def test_silent_database_is_503_in_time(
    urls: tuple[str, str], key_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer asks a page to ask again, rather than to wait; afterwards all is as before."""
    monkeypatch.setattr("usage_ingest.usage_api.http.REQUEST_SECONDS", 0.5)
    async with (
        Line.to(URL(urls[1])) as line,
        Database(str(line.url), name="usage-api", only_reads=True) as reader,
        running_api(reader, key_set) as api,
    ):
        await eventually(lambda: status(api), lambda found: found == 200)
        line.open.clear()
        silent = await api.get("/v1/usage", api.signer.token(uuid4()))
        line.open.set()
        await eventually(lambda: status(api), lambda found: found == 200)

    assert (silent.status, silent.body["code"]) == (503, "overloaded")
    assert silent.headers["Retry-After"] == "5"


async def test_slow_query_is_ended_and_hurts_no_other(
    urls: tuple[str, str], key_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database ends it, and its session serves the next request."""
    monkeypatch.setitem(READER_SETTINGS, "statement_timeout", "200ms")
    async with (
        Database(urls[1], name="usage-api", pool_size=1, only_reads=True) as reader,
        running_api(reader, key_set) as api,
        opened(urls[0]) as owner,
    ):
        assert await status(api) == 200
        session = await session_of(reader)
        async with owner.engine.begin() as locking:
            await locking.execute(text("LOCK TABLE totals_progress IN ACCESS EXCLUSIVE MODE"))
            slow = await api.get("/v1/usage", api.signer.token(uuid4()))
        after = await status(api), await session_of(reader)

    assert (slow.status, slow.body["code"]) == (503, "database_unavailable")
    assert "took too long" in slow.body["detail"]
    assert after == (200, session)


async def test_what_finds_no_turn_in_time_is_refused_soon(
    urls: tuple[str, str], key_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some wait, and their time runs out; the others are refused at once. Pages hold up no gate."""
    monkeypatch.setattr("usage_ingest.usage_api.turns.MAX_WAITING_REQUESTS", 5)
    monkeypatch.setattr("usage_ingest.usage_api.turns.MAX_WAIT_SECONDS", 0.5)
    for limit in ("lock_timeout", "statement_timeout"):
        monkeypatch.setitem(READER_SETTINGS, limit, "60s")
    async with (
        Database(urls[1], name="usage-api", only_reads=True) as reader,
        running_api(reader, key_set) as api,
        opened(urls[0]) as owner,
    ):
        async with owner.engine.begin() as locking:
            await locking.execute(text("LOCK TABLE folded_usage IN ACCESS EXCLUSIVE MODE"))
            pages = [asyncio.create_task(page(api)) for _ in range(USAGE_AT_ONCE + 5 + 20)]
            done, waiting = await asyncio.wait(pages, return_when=asyncio.FIRST_COMPLETED)
            gate = await api.get(f"/v1/entitlements/{uuid4()}")
            while len(waiting) > USAGE_AT_ONCE:
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            refused = [each.result() for each in done]
        answered = [await each for each in waiting]

    assert gate.status == 200
    assert {(each.status, each.body["code"]) for each in refused} == {(503, "overloaded")}
    assert {each.headers["Retry-After"] for each in refused} == {"1"}
    assert [each.status for each in answered] == [200] * USAGE_AT_ONCE


async def page(api: Api) -> Answer:
    """Ask what a user's page asks."""
    return await api.get("/v1/usage", api.signer.token(uuid4()))


async def test_standby_that_has_replayed_nothing_is_503(api: Api, ledger: UsageLedger) -> None:
    """As of when its figures are is not known, so it has no answer yet."""
    await ledger.execute("""
        CREATE OR REPLACE VIEW viewer.progress AS
        SELECT true AS complete, NULL::timestamptz AS as_of
    """)

    answers = [
        await api.get("/v1/usage", api.signer.token(uuid4())),
        await api.get(f"/v1/entitlements/{uuid4()}"),
        await api.get("/readyz", None),
    ]

    assert [each.status for each in answers] == [503, 503, 503]
    assert "replayed nothing" in answers[0].body["detail"]


async def session_of(reader: Database) -> int:
    """Return the process of the one session that the API has."""
    return int(await reader.run(lambda c: c.scalar(text("SELECT pg_backend_pid()"))))
