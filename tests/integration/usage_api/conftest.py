"""The usage API in this process, on a real ledger, and a client of it."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute

from local_stack.ports import LOOPBACK
from local_stack.servers import Database as PostgresServer
from nexus_database import Database
from nexus_messaging.clock import utc_now
from nexus_plans import load
from nexus_service.api_keys import make_api_key
from nexus_service.asgi import probe_routes, serving_asgi
from nexus_service.rate_limit import RateLimiter
from support.databases import opened
from support.usage_ledger import UsageLedger
from support.usage_tokens import Signer, write_key_set
from usage_ingest.usage_api.http import Callers, UsageApi, application
from usage_ingest.usage_api.metrics import Metrics
from usage_ingest.usage_api.storage import UsageReader
from usage_ingest.usage_api.tokens import TokenKeys

PLANS = Path(__file__).parents[3] / "deploy" / "plans.yaml"
KEY, KEYS_ENTRY = make_api_key("gate", ["*"], ["entitlements.read", "usage.read"])
PUBLISHING_KEY, PUBLISHING_ENTRY = make_api_key("hub", ["*"], ["*"])
ORIGIN = "https://app.example.com"


@dataclass(frozen=True)
class Answer:
    """An answer of the API."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Api:
    """The running API, the key of the host whose tokens it takes, and a client."""

    url: str
    signer: Signer
    registry: CollectorRegistry = field(repr=False)

    async def get(
        self, path: str, token: str | None = KEY, *, method: str = "GET", **headers: str
    ) -> Answer:
        """Send a request; in names of headers, ``_`` stands for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.url}{path}", headers=sent) as answer,
        ):
            is_json = "json" in answer.headers.get("Content-Type", "")
            body = await answer.json(content_type=None) if is_json else await answer.text()
            return Answer(answer.status, answer.headers, body)

    async def usage(self, user: UUID, account: UUID | None = None, **query: object) -> Any:
        """Return what a user's page shows, with a token for an account."""
        asked = "&".join(f"{name.rstrip('_')}={value}" for name, value in query.items())
        answer = await self.get(f"/v1/usage?{asked}", self.signer.token(user, account))
        assert answer.status == 200, answer.body
        return answer.body

    async def entitlements(self, user: UUID, token: str | None = KEY) -> Any:
        """Return what a user may do."""
        answer = await self.get(f"/v1/entitlements/{user}", token)
        assert answer.status == 200, answer.body
        return answer.body

    def counted(self, route: str, answer: str) -> float:
        """Return how many requests had this answer, by the metrics."""
        labels = {"route": route, "answer": answer}
        return self.registry.get_sample_value("usage_api_requests_total", labels) or 0.0


@asynccontextmanager
async def running_api(
    reader: Database,
    key_set: Path,
    *,
    rate: float = 1e6,
    with_plans: bool = True,
    now: Callable[[], datetime] = utc_now,
    files: BaseRoute | None = None,
    origins: Sequence[str] = (ORIGIN,),
) -> AsyncIterator[Api]:
    """Run the API on a database, whose tokens are signed by a key of its own."""
    registry, signer = CollectorRegistry(), Signer()
    write_key_set(key_set, [signer])
    keys = TokenKeys(key_set)
    plans = load(PLANS) if with_plans else None
    limits = (RateLimiter(rate, rate, time.monotonic) for _ in range(2))
    callers = Callers((KEYS_ENTRY, PUBLISHING_ENTRY), next(limits), keys, next(limits), now)
    usage_reader = UsageReader(reader, plans)
    probes = probe_routes(registry, health={}, readiness={"database": usage_reader.fault})
    api = UsageApi(callers, usage_reader, plans, Metrics(registry))
    app = application(api, probes, origins=origins, files=files)
    async with serving_asgi(app, LOOPBACK, 0) as server:
        yield Api(f"http://{LOOPBACK}:{server.port}", signer, registry)


@pytest.fixture
async def urls(
    clone: Callable[[str], Awaitable[str]], postgres: PostgresServer, password: str
) -> tuple[str, str]:
    """Return the URLs of a migrated ledger: as its owner, and as `usage_reader`."""
    name = (await clone("usage_ingest")).rpartition("/")[2]
    owner, reader = (
        postgres.url(name, role, password) for role in ("usage_ingest_owner", "usage_reader")
    )
    return owner, reader


@pytest.fixture
async def ledger(urls: tuple[str, str]) -> AsyncIterator[UsageLedger]:
    """Return the ledger, which the test fills."""
    async with opened(urls[0]) as database:
        yield UsageLedger(database)


@pytest.fixture
async def reader(urls: tuple[str, str]) -> AsyncIterator[Database]:
    """Return the database as the API uses it."""
    async with Database(urls[1], name="usage-api", only_reads=True) as database:
        yield database


@pytest.fixture
def key_set(tmp_path: Path) -> Path:
    """Return where the key set is."""
    return tmp_path / "keys.json"


@pytest.fixture
async def api(reader: Database, key_set: Path) -> AsyncIterator[Api]:
    """Return the running API with the example's plans."""
    async with running_api(reader, key_set) as running:
        yield running
