"""What the broker's management API is used for: listing queues, and what an operator does."""

import asyncio
from typing import Any, Final
from urllib.parse import quote

from local_stack import management
from local_stack.catalogue import VHOST
from local_stack.dead_letters import dead_letter_queues
from local_stack.stack import Stack
from metering_chaos.plan import Queues

_VHOST: Final = quote(VHOST, safe="")
_MOVE_SECONDS: Final = 15.0
_ANSWER_SECONDS: Final = 30.0
# Policies are named after the queue they apply to.
_POLICY_PREFIX: Final = "nexus."


async def ask(stack: Stack, path: str, *, method: str = "GET", body: object = None) -> Any:
    """Ask the management API as the operator.

    Raises:
        OSError: the management API refused, or does not answer.
    """
    return await asyncio.to_thread(
        management.ask,
        stack.broker.management_url,
        stack.operator,
        path,
        method=method,
        body=body,
        seconds=_ANSWER_SECONDS,
    )


def read_queues(stack: Stack) -> Queues:
    """Read which queues the broker has, and which figures of their policies can be changed.

    Raises:
        OSError: the management API refused, or does not answer.
    """
    url, admin = stack.broker.management_url, stack.broker.admin
    names = management.queue_names(url, admin, VHOST)
    dead = dead_letter_queues(names)
    policies = management.ask(url, admin, f"policies/{_VHOST}")
    figures = {
        figure: {
            each["name"]: each["definition"][figure]
            for each in policies
            if each["definition"].get(figure, 0) > 0
        }
        for figure in ("message-ttl", "delivery-limit")
    }
    waits = figures["message-ttl"]
    tiers = tuple(queue_of(name) for name in sorted(waits, key=waits.__getitem__))
    return Queues(
        work=tuple(dead),
        tiers=tiers,
        kept=tuple(name for name in names if name not in {*dead, *tiers}),
        policies=tuple(
            f"{name} {figure}" for figure, values in figures.items() for name in sorted(values)
        ),
    )


def queue_of(policy: str) -> str:
    """Return the queue that a policy of the topology applies to."""
    return policy.removeprefix(_POLICY_PREFIX)


def policy_path(name: str) -> str:
    """Return where a policy is read, set and deleted."""
    return f"policies/{_VHOST}/{quote(name, safe='')}"


async def move(stack: Stack, source: str, destination: str) -> None:
    """Move all messages of ``source``, as *Move messages* does: by a shovel that ends itself.

    Raises:
        OSError: the management API refused, or does not answer.
        TimeoutError: the move did not end in time; it goes on.
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
    shovel = {"component": "shovel", "name": name, "value": value}
    await ask(stack, path, method="PUT", body=shovel)
    async with asyncio.timeout(_MOVE_SECONDS):
        while await _moving(stack, name):  # noqa: ASYNC110 - the broker does not report the end
            await asyncio.sleep(0.2)


async def _moving(stack: Stack, name: str) -> bool:
    return any(each["name"] == name for each in await ask(stack, "parameters/shovel"))


async def peek(stack: Stack, queue: str, count: int) -> None:
    """Read some messages, as *Get messages* with requeue does.

    Raises:
        OSError: the management API refused, or does not answer.
    """
    body = {"count": count, "ackmode": "ack_requeue_true", "encoding": "auto", "truncate": 50000}
    await ask(stack, f"queues/{_VHOST}/{quote(queue, safe='')}/get", method="POST", body=body)


async def active_consumers(stack: Stack, queue: str) -> set[int]:
    """Return the client ports of the consumers that the broker delivers a queue's messages to.

    It is asked as the administrator: the operator is shown no connection but its own.

    Raises:
        OSError: the management API refused, or does not answer.
    """
    consumers = await asyncio.to_thread(
        management.ask, stack.broker.management_url, stack.broker.admin, f"consumers/{_VHOST}"
    )
    return {
        each["channel_details"].get("peer_port")
        for each in consumers
        if each["queue"]["name"] == queue and each["active"]
    }
