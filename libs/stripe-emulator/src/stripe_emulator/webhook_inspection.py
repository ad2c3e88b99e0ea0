"""The inspection API of webhooks under ``/_emulator``: endpoints, deliveries and their faults."""

from typing import Any

from aiohttp import web

from stripe_emulator.account import StripeAccount
from stripe_emulator.deliveries import Delivery
from stripe_emulator.delivery_faults import DeliveryFault
from stripe_emulator.errors import StripeError
from stripe_emulator.faults import InvalidFaultError
from stripe_emulator.inspection_bodies import bad_request, read_object
from stripe_emulator.thin_events import thin_event
from stripe_emulator.webhook_sender import WebhookSender


def webhook_routes(account: StripeAccount, sender: WebhookSender) -> list[web.RouteDef]:
    """Return the routes that read and control the webhooks of ``account``."""
    inspection = _WebhookInspection(account, sender)
    return [
        web.post("/_emulator/webhooks/endpoints", inspection.add_endpoint),
        web.post("/_emulator/webhooks/endpoints/{id}/secrets", inspection.change_secrets),
        web.get("/_emulator/webhooks", inspection.deliveries),
        web.post("/_emulator/webhooks/release", inspection.release),
        web.post("/_emulator/webhooks/resend", inspection.resend),
        web.get("/_emulator/webhooks/faults", inspection.faults),
        web.post("/_emulator/webhooks/faults", inspection.add_fault),
        web.delete("/_emulator/webhooks/faults", inspection.remove_faults),
        web.delete("/_emulator/webhooks/faults/{id}", inspection.remove_faults),
        web.post("/_emulator/webhooks/events", inspection.emit),
        web.post("/_emulator/subscriptions/{id}", inspection.set_status),
    ]


class _WebhookInspection:
    def __init__(self, account: StripeAccount, sender: WebhookSender) -> None:
        self._account = account
        self._sender = sender

    async def add_endpoint(self, request: web.Request) -> web.Response:
        match await read_object(request):
            case {"url": str() as url, "secret": str() as secret, **rest}:
                params = {"url": url, "enabled_events": rest.get("events", ["*"])}
            case _:
                raise bad_request("wanted a url and a secret")
        now = self._account.clock.now()
        endpoint = self._account.webhook_endpoints.create(params, now, secret)
        return web.json_response({"id": endpoint["id"]}, status=201)

    async def change_secrets(self, request: web.Request) -> web.Response:
        endpoints, id_ = self._account.webhook_endpoints, request.match_info["id"]
        match await read_object(request):
            case {"add": str() as secret, **rest} if not rest:
                endpoints.roll_secret(id_, secret)
            case {"expire": "oldest", **rest} if not rest:
                endpoints.expire_secret(id_)
            case _:
                raise bad_request('wanted {"add": secret} or {"expire": "oldest"}')
        return web.json_response({"id": id_})

    async def deliveries(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.deliveries.listed())

    async def release(self, request: web.Request) -> web.Response:
        """Send held deliveries one after the other, and answer once all have been answered."""
        ids = (await read_object(request)).get("deliveries")
        try:
            held = [*self._account.deliveries.take_held(ids)]
        except (KeyError, TypeError):
            raise bad_request("deliveries must be ids of deliveries, or null for all") from None
        return await self._send(held)

    async def resend(self, request: web.Request) -> web.Response:
        """Send an event once more to every endpoint that wants it, now."""
        try:
            event = self._account.event_log.get(str((await read_object(request)).get("event")))
        except StripeError as error:
            raise bad_request(str(error)) from error
        deliveries = self._account.deliveries
        added = [
            deliveries.add(event, endpoint["id"], None).id
            for endpoint in self._account.webhook_endpoints.wanting(event["type"])
        ]
        return await self._send([*deliveries.take_held(added)])

    async def _send(self, deliveries: list[Delivery]) -> web.Response:
        for delivery in deliveries:
            await self._sender.send(delivery)
        return web.json_response([delivery.view() for delivery in deliveries])

    async def faults(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.deliveries.faults.listed())

    async def add_fault(self, request: web.Request) -> web.Response:
        try:
            fault = DeliveryFault.read(await read_object(request))
        except InvalidFaultError as error:
            raise bad_request(str(error)) from error
        return web.json_response({"id": self._account.deliveries.faults.add(fault)}, status=201)

    async def remove_faults(self, request: web.Request) -> web.Response:
        removed = self._account.deliveries.faults.remove(request.match_info.get("id"))
        return web.json_response({"removed": removed})

    async def emit(self, request: web.Request) -> web.Response:
        """Make an event that no call has caused: a snapshot of an object, or a thin one."""
        match await read_object(request):
            case {"type": str() as type_, "object": dict() as subject, **rest}:
                event = self._snapshot(type_, subject, livemode=bool(rest.get("livemode")))
            case {"type": str() as type_, **rest}:
                event = self._thin(type_, rest)
            case _:
                raise bad_request("wanted a type, and an object or a related_object")
        self._account.event_log.add(event)
        return web.json_response({"id": event["id"]}, status=201)

    async def set_status(self, request: web.Request) -> web.Response:
        status = str((await read_object(request)).get("status"))
        try:
            changed = self._account.subscriptions.set_status(request.match_info["id"], status)
        except StripeError as error:
            raise bad_request(str(error)) from error
        return web.json_response({"status": changed["status"]})

    def _snapshot(self, type_: str, subject: dict[str, Any], *, livemode: bool) -> dict[str, Any]:
        event = self._account.event_log.snapshot(type_, subject)
        return {**event, "livemode": livemode}

    def _thin(self, type_: str, rest: dict[str, Any]) -> dict[str, Any]:
        now, data, related = self._account.clock.now(), rest.get("data"), rest.get("related_object")
        return thin_event(now, type_, data, related, livemode=bool(rest.get("livemode")))
