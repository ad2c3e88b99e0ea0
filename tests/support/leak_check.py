"""Whether running services disclose what must stay secret: passwords, keys, addresses, names.

All their output is searched: logs, metrics, and the headers of every retry copy and every dead
letter. An additional queue, bound beside the others, keeps those headers from first to last.
"""

import asyncio
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

import aio_pika

from local_stack.catalogue import BROKER_USERS, SERVICES, VHOST
from local_stack.loopback import fetch
from local_stack.server_process import ServerProcess
from local_stack.stack import Stack
from nexus_contracts import Event, EventData, UserCreated
from nexus_messaging.topology import DEAD, TIERS

TAP: Final = "tap"
EMAIL_ADDRESS: Final = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
SECRET_SETTINGS: Final = (
    "STRIPE_SECRET_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "AMQP_URL",
    "DATABASE_URL",
    "MANAGEMENT_URL",
)


def leaks(outputs: Mapping[str, str], secrets: Collection[str]) -> list[str]:
    """Name each output that holds an e-mail address or a secret, by its number in order."""
    ordered = sorted(secrets)
    return [
        f"{place}: {found}"
        for place, text in outputs.items()
        for found in (
            *(f"secret {n}" for n, each in enumerate(ordered) if _holds(text, each)),
            *(["an e-mail address"] if EMAIL_ADDRESS.search(text) else []),
        )
    ]


def _holds(text: str, secret: str) -> bool:
    # As a word of its own: a name as short as Ada may be part of any random token.
    return re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text) is not None


def secrets_in(settings: Mapping[str, str]) -> set[str]:
    """Return the secrets among a service's settings: keys, and the passwords in its URLs."""
    found = {settings[name] for name in SECRET_SETTINGS if settings.get(name)}
    return {_password_in(each) if "://" in each else each for each in found} - {""}


def secrets_of(stack: Stack) -> set[str]:
    """Return the Stripe key and every password of a running stack."""
    admin = stack.broker.admin
    urls = {stack.amqp_url(user) for user in BROKER_USERS}
    for plan in SERVICES:
        urls |= {stack.database_url(plan.name), stack.database_url(plan.name, owner=True)}
    return {_password_in(url) for url in urls} | {
        *(admin.password, stack.stripe_key, stack.webhook_secret, stack.api_key)
    }


def admin_url(stack: Stack) -> str:
    """Return the AMQP URL of a stack's administrator."""
    admin = stack.broker.admin
    return stack.broker.amqp_url(admin.user, admin.password, VHOST)


def _password_in(url: str) -> str:
    return unquote(urlsplit(url).password or "")


def personal_data(*events: Event[EventData]) -> Iterator[str]:
    """Yield the addresses and names in events."""
    for event in events:
        if isinstance(event.data, UserCreated):
            yield event.data.email
            if event.data.name:
                yield event.data.name


async def tap(url: str) -> None:
    """Keep a copy of every retry copy and every dead letter from now on, as the administrator."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(TAP, durable=True)
        for exchange in (DEAD, *(tier.name for tier in TIERS)):
            await queue.bind(exchange, "#")


async def tapped(url: str) -> str:
    """Return the headers of all copies kept since ``tap``, as text."""
    found = []
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(TAP)
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            found.append(repr(message.headers))
    return "\n".join(found)


def metrics_of(processes: Iterable[ServerProcess]) -> dict[str, str]:
    """Return the metrics of the processes that run.

    Raises:
        OSError: a process runs and does not answer.
    """
    metrics = {}
    for process in processes:
        if process.alive:
            try:
                metrics[f"metrics of {process.name}"] = fetch(f"{process.url}/metrics").decode()
            except OSError:
                if process.alive:
                    raise
    return metrics


def logs_of(processes: Iterable[ServerProcess]) -> dict[str, str]:
    """Return the logs of services so far."""
    return {
        f"log of {process.name}": process.log.read_text(encoding="utf-8")
        for process in processes
        if process.log.exists()
    }


async def outputs_of(processes: Collection[ServerProcess], tap_url: str) -> dict[str, str]:
    """Stop services and return all their output until then."""
    metrics = await asyncio.to_thread(metrics_of, processes)
    for process in processes:
        await asyncio.to_thread(process.stop)
    return {**metrics, **logs_of(processes), "headers of copies": await tapped(tap_url)}
