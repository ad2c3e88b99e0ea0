"""usage-ingest in this process, on a vhost and a database of the test's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from nexus_database import Database
from nexus_messaging.publisher import Publisher
from nexus_service.app import App
from nexus_service.lifecycle import keep_running
from nexus_service.settings import load
from support.databases import url_of
from support.vhost import Vhost
from usage_ingest.app import assemble
from usage_ingest.settings import NAME, Settings


@asynccontextmanager
async def running_ingest(vhost: Vhost, database: Database) -> AsyncIterator[None]:
    """Run every loop of usage-ingest while the context lasts; they are cancelled at its end."""
    amqp = vhost.url("usage-ingest")
    url = url_of(database)
    settings = load(Settings, {"AMQP_URL": amqp, "DATABASE_URL": url})
    async with AsyncExitStack() as stack:
        publisher = await Publisher.connect(amqp, name="usage-ingest")
        stack.push_async_callback(publisher.close)
        app = App(NAME, settings, database, publisher)
        assemble(app, settings)
        tasks = [asyncio.create_task(keep_running(name, loop)) for name, loop in app.loops.items()]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
