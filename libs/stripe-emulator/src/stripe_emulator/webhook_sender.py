"""Sends events to webhook endpoints, signed, and again where an endpoint does not take them."""

import asyncio
import json
import time
from contextlib import suppress

import aiohttp

from stripe_emulator.account import StripeAccount
from stripe_emulator.deliveries import Attempt, Delivery
from stripe_emulator.errors import StripeError
from stripe_emulator.thin_events import THIN

PAUSE_SECONDS = 0.1
"""Between two looks at the clock, which a test may set without a word."""

_AGENT = "Stripe/1.0 (+https://stripe.com/docs/webhooks)"


class WebhookSender:
    """Makes the attempts of all deliveries, each in a task, as Stripe waits for none of them."""

    def __init__(self, account: StripeAccount) -> None:
        self._account = account
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        account.deliveries.planned = self._wake.set

    async def run(self) -> None:
        """Send what is due until this is cancelled."""
        try:
            while True:
                self._account.settle()
                for delivery in self._account.deliveries.take_due():
                    task = asyncio.create_task(self.send(delivery))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._session is not None:
                await self._session.close()

    async def send(self, delivery: Delivery) -> None:
        """Make one attempt and note what came of it."""
        attempt = await self._attempt(delivery)
        self._account.deliveries.finish(delivery, attempt)

    async def _attempt(self, delivery: Delivery) -> Attempt:
        account, at = self._account, self._account.clock.now()
        try:
            endpoint = account.webhook_endpoints.get(delivery.endpoint)
        except StripeError:
            return Attempt(at, None, "the endpoint was deleted")
        body = json.dumps(_sent_form(delivery.event, endpoint["api_version"]), indent=2)
        # The time of a signature is real: a receiver compares it with its own clock.
        signature = account.webhook_endpoints.signature(endpoint["id"], body, int(time.time()))
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature,
            "User-Agent": _AGENT,
        }
        if self._session is None:
            self._session = aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(total=account.options.webhook_timeout_seconds)
        try:
            async with self._session.post(
                endpoint["url"],
                data=body.encode(),
                headers=headers,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                await response.read()
                return Attempt(at, response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            return Attempt(at, None, type(error).__name__)


def _sent_form(event: dict[str, object], version: str | None) -> dict[str, object]:
    """Return what of an event is sent: of a thin one no data, of a snapshot the endpoint's version.

    The objects do not change with the version.
    """
    if event["object"] == THIN:
        return {name: value for name, value in event.items() if name not in {"data", "changes"}}
    return event if version is None else {**event, "api_version": version}
