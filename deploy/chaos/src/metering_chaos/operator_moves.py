"""What an operator does in the broker's management UI: moves queues, looks in, changes policies."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from local_stack.catalogue import VHOST
from local_stack.stack import Stack

_VHOST: Final = quote(VHOST, safe="")
_MOVED_WITHIN: Final = 15.0


async def move(stack: Stack, source: str, destination: str) -> None:
    """Move all messages of ``source``, as *Move messages* does: by a shovel that ends itself.

    Raises:
        aiohttp.ClientError: the management API refused it, or went away.
        TimeoutError: it did not end in time; it goes on.
    """
    name = f"Move from {source}"
    uri = f"amqp:///{_VHOST}"
    value = {
        "src-uri": uri,
        "src-queue": source,
        "src-protocol": "amqp091",
        "src-prefetch-count": 1000,
        "src-delete-after": "queue-length",
        "dest-protocol": "amqp091",
        "dest-uri": uri,
        "dest-queue": destination,
        "dest-add-forward-headers": False,
        "ack-mode": "on-confirm",
    }
    path = f"parameters/shovel/{_VHOST}/{quote(name, safe='')}"
    await _ask(stack, "PUT", path, {"component": "shovel", "name": name, "value": value})
    async with asyncio.timeout(_MOVED_WITHIN):
        while await _moving(stack, name):  # noqa: ASYNC110 - the broker sends no word of it
            await asyncio.sleep(0.2)


async def _moving(stack: Stack, name: str) -> bool:
    return any(each["name"] == name for each in await _ask(stack, "GET", "parameters/shovel"))


async def peek(stack: Stack, queue: str, count: int) -> None:
    """Look at some messages, as *Get messages* with requeue does.

    Raises:
        aiohttp.ClientError: the management API refused it, or went away.
    """
    body = {"count": count, "ackmode": "ack_requeue_true", "encoding": "auto", "truncate": 50000}
    await _ask(stack, "POST", f"queues/{_VHOST}/{quote(queue, safe='')}/get", body)


async def policy(stack: Stack, name: str) -> dict[str, Any]:
    """Return a policy as it can be set again.

    Raises:
        aiohttp.ClientError: the management API refused it, or went away.
    """
    found = await _ask(stack, "GET", _policy_path(name))
    return {key: found[key] for key in ("pattern", "definition", "priority", "apply-to")}


async def set_policy(stack: Stack, name: str, value: Mapping[str, Any]) -> None:
    """Set a policy.

    Raises:
        aiohttp.ClientError: the management API refused it, or went away.
    """
    await _ask(stack, "PUT", _policy_path(name), value)


async def remove_policy(stack: Stack, name: str) -> None:
    """Remove a policy.

    Raises:
        aiohttp.ClientError: the management API refused it, or went away.
    """
    await _ask(stack, "DELETE", _policy_path(name))


def _policy_path(name: str) -> str:
    return f"policies/{_VHOST}/{quote(name, safe='')}"


async def _ask(stack: Stack, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    login = aiohttp.encode_basic_auth(stack.operator.user, stack.operator.password)
    url = URL(f"{stack.broker.management_url}/api/{path}", encoded=True)
    async with (
        aiohttp.ClientSession(headers={"Authorization": login}, raise_for_status=True) as session,
        session.request(method, url, json=body) as answer,
    ):
        return await answer.json(content_type=None)
