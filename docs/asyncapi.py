"""What each service consumes, as AsyncAPI 3.0 says it: FastStream writes it from the routers."""

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from faststream.rabbit import RabbitBroker, RabbitExchange, RabbitQueue
from faststream.specification import AsyncAPI

from nexus_contracts import Event
from nexus_messaging.router import Router
from nexus_messaging.topology import VHOST

VERSION: Final = "1"
"""Of the contracts: a release's would change the pages without a change of what they say."""


def asyncapi_page(service: str, router: Router) -> Iterator[str]:
    """Yield the lines of a service's document."""
    broker = RabbitBroker(f"amqp://broker/{VHOST}", logger=None)
    for route in router.routes:
        for data in route.events:
            broker.subscriber(
                RabbitQueue(route.queue, declare=False),
                RabbitExchange(declare=False),
                title=data.TYPE,
                description=route.function.__doc__,
                no_reply=True,
            )(_taking(Event[data]))  # type: ignore[valid-type] # a type that is made here
    document = AsyncAPI(broker, title=service, version=VERSION).to_specification().to_jsonable()
    yield json.dumps(_with_standard_keys(document), indent=2, sort_keys=True)


def _taking(event: Any) -> Callable[..., Awaitable[None]]:
    async def handler(event: Any) -> None: ...

    handler.__annotations__["event"] = event
    return handler


def _with_standard_keys(document: Any) -> Any:
    """Return it with keys of components as AsyncAPI allows them: letters, digits, `.`, `-`, `_`."""
    text = json.dumps(document).replace(":SubscribeMessage", ".message")
    return json.loads(re.sub(r"Event(?:\[|%5B)(\w+)(?:\]|%5D)", r"EventOf\1", text))
