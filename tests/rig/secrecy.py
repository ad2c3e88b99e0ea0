"""Whether running services tell anybody what nobody may read: passwords, keys, addresses, names.

Everything that they tell people is searched: logs, metrics, and the headers of every retry copy and
every dead letter, which a queue bound beside the others keeps from the first to the last.
"""

import asyncio
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
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
LOOKS_LIKE_AN_ADDRESS: Final = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
SECRET_SETTINGS: Final = ("STRIPE_SECRET_KEY", "AMQP_URL", "DATABASE_URL", "MANAGEMENT_URL")


def leaks(told: Mapping[str, str], secrets: Collection[str]) -> list[str]:
    """Name each place that tells a secret or any address, by its number among the secrets."""
    ordered = sorted(secrets)
    return [
        f"{place}: {what}"
        for place, text in told.items()
        for what in (
            *(f"secret {n}" for n, each in enumerate(ordered) if _holds(text, each)),
            *(["an e-mail address"] if LOOKS_LIKE_AN_ADDRESS.search(text) else []),
        )
    ]


def _holds(text: str, secret: str) -> bool:
    # As a word of its own: a name as short as Ada may be part of any random token.
    return re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text) is not None


def secrets_in(settings: Mapping[str, str]) -> set[str]:
    """Return what is secret of a service's settings: keys, and the passwords in its URLs."""
    found = {settings[name] for name in SECRET_SETTINGS if settings.get(name)}
    return {password_in(each) if "://" in each else each for each in found} - {""}


def secrets_of(stack: Stack) -> set[str]:
    """Return the Stripe key and every password of a running stack."""
    admin = stack.broker.admin
    urls = {stack.amqp_url(user) for user in BROKER_USERS}
    for plan in SERVICES:
        urls |= {stack.database_url(plan.name), stack.database_url(plan.name, owner=True)}
    return {password_in(url) for url in urls} | {admin.password, stack.stripe_key}


def admin_url(stack: Stack) -> str:
    """Return the AMQP URL of a stack's administrator."""
    admin = stack.broker.admin
    return stack.broker.amqp_url(admin.user, admin.password, VHOST)


def password_in(url: str) -> str:
    """Return the password in a URL, or nothing."""
    return unquote(urlsplit(url).password or "")


def personal(*events: Event[EventData]) -> Iterator[str]:
    """Yield the addresses and names that events tell."""
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
    """Return the headers of all that was kept, as text."""
    found = []
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(TAP)
        while (message := await queue.get(fail=False, no_ack=True)) is not None:
            found.append(repr(message.headers))
    return "\n".join(found)


def metrics_of(processes: Iterable[ServerProcess]) -> dict[str, str]:
    """Return what running services show to be scraped."""
    told = {}
    for process in processes:
        if process.alive:
            with suppress(OSError):
                told[f"metrics of {process.name}"] = fetch(f"{process.url}/metrics").decode()
    return told


def logs_of(processes: Iterable[ServerProcess]) -> dict[str, str]:
    """Return what services have logged so far."""
    return {
        f"log of {process.name}": process.log.read_text(encoding="utf-8")
        for process in processes
        if process.log.exists()
    }


async def told_by(processes: Collection[ServerProcess], tap_url: str) -> dict[str, str]:
    """Stop services and return everything that they told anybody until then."""
    told = await asyncio.to_thread(metrics_of, processes)
    for process in processes:
        await asyncio.to_thread(process.stop)
    return {**told, **logs_of(processes), "headers of copies": await tapped(tap_url)}
