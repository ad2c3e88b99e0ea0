"""The database is away, silent or slow: 503 with `Retry-After`, and the API stays up."""

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
from support.waiting import eventually

from .conftest import Api, running_api


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
    """A page is told to ask again, rather than to wait; afterwards all is as before."""
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


async def session_of(reader: Database) -> int:
    """Return the process of the one session that the API has."""
    return int(await reader.run(lambda c: c.scalar(text("SELECT pg_backend_pid()"))))
