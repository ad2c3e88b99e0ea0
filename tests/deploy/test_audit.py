"""The audit of the images' dependencies, with an advisory database on this machine.

Long because uv reads the dependencies' metadata from the registry first.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from local_stack.ports import LOOPBACK, free_ports
from support.http_servers import serve_routes

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
        known = {"id": "TEST-1", "modified": "2026-01-01T00:00:00Z", "summary": "Gives all away"}
        return web.json_response(known)

    routes = (web.post("/v1/querybatch", batch), web.get("/v1/vulns/{id}", advisory))
    async with serve_routes(*routes) as url:
        yield f"{url}/"


async def audit(url: str, *arguments: str) -> tuple[int, str]:
    """Audit at an advisory database; return the exit code and the output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(AUDIT), "--service-url", url, *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_advisory_on_a_pinned_dependency_fails_the_audit() -> None:
    """The dependency and the advisory are named, also with `--if-answered`."""
    async with advisory_database("stripe") as url:
        code, output = await audit(url, "--if-answered")

    assert code == 1
    assert "stripe" in output
    assert "TEST-1: Gives all away" in output


async def test_audit_without_a_finding_gives_the_number_audited() -> None:
    """Without the number, nothing audited would look like nothing found."""
    async with advisory_database("none-of-them") as url:
        code, output = await audit(url)

    pinned = (AUDIT.parent / "runtime.txt").read_text(encoding="utf-8").count("==")
    assert (code, output) == (0, f"audit: {pinned} pinned dependencies, no known advisory\n")


async def test_silent_database_fails_only_make_audit() -> None:
    """`make check` passes where no database can be reached; `make audit` does not."""
    nobody = f"http://{LOOPBACK}:{free_ports(None)[0]}/"

    for arguments, expected in ((("--if-answered",), 0), ((), 2)):
        code, output = await audit(nobody, *arguments)
        assert code == expected
        assert output.startswith("audit: no advisory database answers; not audited (")
        assert output.count("\n") == 1
