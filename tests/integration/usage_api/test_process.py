"""`usage-ingest usage-api` as a process of its own, and `usage-ingest usage` in a terminal."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest

from local_stack.catalogue import USAGE_API, base_environment, usage_api_command
from local_stack.ports import LOOPBACK, free_ports
from local_stack.server_process import ServerProcess
from metering_chaos.environment import in_thread
from support.commands import in_a_pipe, on_a_terminal
from support.leak_check import leaks, logs_of, metrics_of, secrets_in
from support.memory import MAX_WHEN_IDLE, resident_mib
from support.usage_ledger import UsageLedger
from support.usage_tokens import Signer, write_key_set

from .conftest import KEY, KEYS_ENTRY, PLANS


@pytest.fixture
def settings(urls: tuple[str, str], key_set: Path, signer: Signer) -> dict[str, str]:
    """Return the settings of the process."""
    write_key_set(key_set, [signer])
    return {
        "DATABASE_URL": urls[1],
        "API_KEYS": KEYS_ENTRY.configured,
        "PLANS_FILE": str(PLANS),
        "USAGE_TOKEN_KEYS": str(key_set),
    }


@pytest.fixture
def signer() -> Signer:
    """Return the host's key."""
    return Signer()


@pytest.fixture
async def process(settings: dict[str, str], tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """Return the process, which is not running yet."""
    [port] = free_ports(None)
    server = ServerProcess(
        USAGE_API,
        usage_api_command(),
        url=f"http://{LOOPBACK}:{port}",
        ready_path="/readyz",
        log=tmp_path / "usage-api.log",
        env={**base_environment(), **settings, "HTTP_PORT": str(port)},
        grace=15,
        on_start=lambda: None,
    )
    yield server
    server.stop()


async def get(url: str, token: str) -> int:
    """Return the status of a page."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as client, client.get(url) as answer:
        return answer.status


async def test_it_answers_and_ends_in_order(
    process: ServerProcess,
    settings: dict[str, str],
    signer: Signer,
    key_set: Path,
) -> None:
    """Without a broker; with a changed key set at once; its output holds no token and no key."""
    user, newer = uuid4(), Signer.es256()
    token, forged = signer.token(user), newer.token(user)
    await in_thread(process.launch_and_wait)
    usage = f"{process.url}/v1/usage"

    answers = [
        await get(f"{process.url}/v1/entitlements/{user}", KEY),
        await get(usage, token),
        await get(usage, forged),
    ]
    write_key_set(key_set, [newer])
    rotated = [await get(usage, token), await get(usage, forged)]
    idle = resident_mib(process)
    output = {**await in_thread(lambda: metrics_of([process]))}
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert await in_thread(lambda: process.wait_for_exit(10))

    assert (answers, rotated) == ([200, 200, 401], [401, 200])
    assert idle < MAX_WHEN_IDLE
    assert process.exit_code == 0
    output |= logs_of([process])
    secrets = {KEY, token, forged, str(user), *secrets_in(settings)}
    assert leaks(output, secrets) == []
    assert '"event": "stopped"' in output[f"log of {USAGE_API}"]


SECRET_IN: Final = {
    "query": "GET /v1/usage?token={0}&user={0}&from={0} HTTP/1.1",
    "query of a user": "GET /v1/entitlements/{1}?access_token={0} HTTP/1.1",
    "path": "GET /v1/entitlements/{0} HTTP/1.1",
    "unknown path": "GET /{0} HTTP/1.1",
    "address": "GET http://{0}@{0}.example/v1/usage HTTP/1.1",
    "credentials": "GET /v1/usage HTTP/1.1\r\nAuthorization: Basic {0}",
    "token": "GET /v1/usage HTTP/1.1\r\nAuthorization: Bearer {0}",
    "other headers": (
        "GET /v1/usage HTTP/1.1\r\nCookie: {0}\r\nOrigin: https://{0}\r\nReferer: {0}\r\n"
        "If-None-Match: {0}\r\nUser-Agent: {0}\r\nTraceparent: {0}\r\nX-Request-Id: {0}"
    ),
    "preflight": "OPTIONS /v1/usage HTTP/1.1\r\nOrigin: {0}\r\n"
    "Access-Control-Request-Method: {0}\r\nAccess-Control-Request-Headers: {0}",
    "body": "POST /v1/usage HTTP/1.1\r\nContent-Length: {2}\r\n\r\n{0}",
    "method": "{0} /v1/usage HTTP/1.1",
    "version": "GET /v1/usage {0}",
    "no header": "GET /v1/usage HTTP/1.1\r\n{0} {0}",
    "length": "GET /v1/usage HTTP/1.1\r\nContent-Length: {0}",
    "host": "GET /v1/usage HTTP/1.1\r\nHost: {0}",
    "no HTTP": "{0}",
}
"""Requests with a secret (0), a user (1), and the length of the secret (2)."""


async def test_secrets_anywhere_in_a_request_reach_no_output(
    process: ServerProcess, signer: Signer
) -> None:
    """Whether the request is well-formed or not."""
    user, address = uuid4(), "ada@example.com"
    secrets = {KEY, signer.token(user), Signer().token(user)}
    await in_thread(process.launch_and_wait)

    for written in SECRET_IN.values():
        for secret in (*secrets, address):
            await send(process.url, written.format(secret, user, len(secret)))
    output = {**await in_thread(lambda: metrics_of([process]))}
    await in_thread(process.stop)

    assert leaks(output | logs_of([process]), {*secrets, str(user)}) == []


async def send(url: str, request: str) -> None:
    """Send what may be no request, and read until the end of the answer."""
    reader, writer = await asyncio.open_connection(LOOPBACK, urlsplit(url).port)
    writer.write(f"{request}\r\nConnection: close\r\n\r\n".encode())
    writer.write_eof()
    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            await reader.read()
    writer.close()


async def test_check_names_what_is_wrong(settings: dict[str, str], tmp_path: Path) -> None:
    """Faults of settings, files and the database, all at once."""
    fine, wrong_files, wrong_settings = await asyncio.gather(
        in_a_pipe("usage_ingest", USAGE_API, "--check", **settings),
        in_a_pipe(
            *("usage_ingest", USAGE_API, "--check"),
            **settings | {"USAGE_TOKEN_KEYS": str(tmp_path / "none.json")},
        ),
        in_a_pipe(
            *("usage_ingest", USAGE_API, "--check"),
            **settings | {"USAGE_ORIGINS": "https://*.example.com,app.example.com/"},
        ),
    )

    assert (fine.code, wrong_files.code, wrong_settings.code) == (0, 1, 2)
    assert "USAGE_TOKEN_KEYS: can't be read" in wrong_files.output
    assert "USAGE_ORIGINS" in wrong_settings.output


async def test_usage_is_shown_in_a_terminal(urls: tuple[str, str], ledger: UsageLedger) -> None:
    """Plan, limits, runs by tool, and what waits and why; as JSON what the API answers."""
    user = uuid4()
    await ledger.subscribe(user, "pro")
    await ledger.runs(user, 3, tokens=7)
    await ledger.report(user, 40, meter="premium_tool_calls")
    await ledger.report(user, 2, state="rejected", reason="customer_deleted")
    given = {"DATABASE_URL": urls[1], "PLANS_FILE": str(PLANS)}

    piped, terminal, as_json, recent = await asyncio.gather(
        in_a_pipe("usage_ingest", "usage", str(user), **given),
        on_a_terminal("usage_ingest", "usage", str(user), **given),
        in_a_pipe("usage_ingest", "usage", "--json", str(user), **given),
        in_a_pipe("usage_ingest", "usage", "--days", "2", str(user), **given | {"PLANS_FILE": ""}),
    )

    assert {each.code for each in (piped, terminal, as_json, recent)} == {0}
    rows = [line.split() for line in piped.raw.splitlines()]
    assert ["files", "read", "3", "21"] in rows
    assert ["premium_tool_calls", "40", "0"] in rows
    assert ["tool_call_executed", "0", "2", "refused", "(customer_deleted)", "2"] in rows
    assert "plan pro" in piped.raw
    assert "premium_tool_calls" in terminal.text
    facts = json.loads(as_json.raw)
    assert facts["entitlements"]["plan"] == "pro"
    assert facts["usage"]["recorded"][0]["runs"] == 3
    assert "plan and limits are not shown: set PLANS_FILE" in recent.raw
