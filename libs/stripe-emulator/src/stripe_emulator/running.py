"""A running emulator: an account behind a listening socket, for the command or for tests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from stripe_emulator.account import StripeAccount
from stripe_emulator.keys import KeyState
from stripe_emulator.options import Options
from stripe_emulator.server import application
from stripe_emulator.webhook_sender import WebhookSender

DEFAULT_KEY = "sk_test_emulator"
DEFAULT_WEBHOOK_SECRET = "whsec_emulator"  # noqa: S105 - of an emulator
_LIVE_PREFIXES = ("sk_live_", "rk_live_")


class LiveKeyError(ValueError):
    """A key of a live account, which an emulator must not get."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook endpoint: its address, its secret, and the types of events that it gets."""

    url: str
    secret: str
    events: Sequence[str] = ("*",)


@dataclass(frozen=True, slots=True)
class RunningEmulator:
    """Where an emulator listens, and the account it serves."""

    url: str
    account: StripeAccount


@asynccontextmanager
async def running_emulator(
    keys: Sequence[str] = (DEFAULT_KEY,),
    meters: Sequence[str] = (),
    options: Options | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    webhooks: Sequence[Webhook] = (),
) -> AsyncIterator[RunningEmulator]:
    """Serve a new account until the block is left.

    Args:
        keys: API keys that are valid from the start.
        meters: Event names for which a summing meter exists from the start.
        options: The account's behaviour; it can be changed later.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        webhooks: Endpoints that get events from the start.

    Raises:
        LiveKeyError: For a key that starts like a live account's.
        OSError: If it can't listen on the address.
    """
    account = _account(keys, meters, options)
    for webhook in webhooks:
        params = {"url": webhook.url, "enabled_events": list(webhook.events)}
        account.webhook_endpoints.create(params, account.clock.now(), webhook.secret)
    sender = WebhookSender(account)
    runner = web.AppRunner(application(account, sender), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    sending = asyncio.create_task(sender.run())
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0][1]
        yield RunningEmulator(f"http://{host}:{bound}", account)
    finally:
        sending.cancel()
        await asyncio.wait({sending})
        await runner.cleanup()


def _account(keys: Sequence[str], meters: Sequence[str], options: Options | None) -> StripeAccount:
    account = StripeAccount(options)
    for key in keys:
        if key.startswith(_LIVE_PREFIXES):
            raise LiveKeyError("this looks like a live key: revoke it, and give a test key instead")
        account.keys.put(key, KeyState.VALID)
    for event_name in meters:
        account.meters.create(
            {
                "display_name": event_name,
                "event_name": event_name,
                "default_aggregation": {"formula": "sum"},
            },
            account.clock.now(),
        )
    return account
