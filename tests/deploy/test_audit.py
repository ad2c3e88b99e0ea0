"""The audit of what the images hold, against an advisory database on this machine.

Long because uv reads the dependencies' metadata from the registry first.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from local_stack.ports import LOOPBACK, free_ports

AUDIT = Path(__file__).parents[2] / "requirements" / "audit.py"

pytestmark = pytest.mark.long


@asynccontextmanager
async def advisory_database(vulnerable: str) -> AsyncIterator[str]:
    """Serve one advisory, on every version of ``vulnerable``, as OSV's API does."""

    async def batch(request: web.Request) -> web.Response:
        queries = (await request.json())["queries"]
        found = {"vulns": [{"id": "TEST-1", "modified": "2026-01-01T00:00:00Z"}]}
        hit = [found if each["package"]["name"] == vulnerable else {} for each in queries]
        return web.json_response({"results": hit})

    async def advisory(_: web.Request) -> web.Response:
        told = {"id": "TEST-1", "modified": "2026-01-01T00:00:00Z", "summary": "Gives all away"}
        return web.json_response(told)

    application = web.Application()
    application.router.add_post("/v1/querybatch", batch)
    application.router.add_get("/v1/vulns/{id}", advisory)
    runner = web.AppRunner(application)
    await runner.setup()
    [port] = free_ports(None)
    await web.TCPSite(runner, LOOPBACK, port).start()
    yield f"http://{LOOPBACK}:{port}/"
    await runner.cleanup()


@pytest.fixture
def audit() -> Callable[..., Awaitable[tuple[int, str]]]:
    """Return a function that audits at a URL and returns the exit code and what was said."""

    async def run(url: str, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(AUDIT), "--service-url", url, *arguments),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    return run


async def test_an_advisory_on_a_pinned_dependency_fails_the_check(
    audit: Callable[..., Awaitable[tuple[int, str]]],
) -> None:
    """The one that is named, with what is known of it; also where silence is allowed."""
    async with advisory_database("stripe") as url:
        code, said = await audit(url, "--if-answered")

    assert code == 1
    assert "stripe" in said
    assert "TEST-1: Gives all away" in said


async def test_an_audit_without_a_finding_says_how_much_was_audited(
    audit: Callable[..., Awaitable[tuple[int, str]]],
) -> None:
    """A number, as nothing audited would otherwise look like nothing found."""
    async with advisory_database("none-of-them") as url:
        code, said = await audit(url)

    pinned = (AUDIT.parent / "runtime.txt").read_text(encoding="utf-8").count("==")
    assert (code, said) == (0, f"audit: {pinned} pinned dependencies, no known advisory\n")


async def test_silence_is_told_and_fails_only_who_asked_for_an_audit(
    audit: Callable[..., Awaitable[tuple[int, str]]],
) -> None:
    """`make check` goes on where no database can be reached; `make audit` does not."""
    nobody = f"http://{LOOPBACK}:{free_ports(None)[0]}/"

    for arguments, expected in ((("--if-answered",), 0), ((), 2)):
        code, said = await audit(nobody, *arguments)
        assert code == expected
        assert said.startswith("audit: no advisory database answers; not audited (")
        assert said.count("\n") == 1
