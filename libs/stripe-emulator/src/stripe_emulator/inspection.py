"""The inspection API under ``/_emulator``: reads the account's state, and sets faults and options.

Plain JSON, no key. A request that can't be read answers 400 with ``{"error": "<what is wrong>"}``.
"""

from aiohttp import web

from stripe_emulator.account import StripeAccount
from stripe_emulator.event_faults import EventFault
from stripe_emulator.faults import Fault, InvalidFaultError
from stripe_emulator.inspection_bodies import bad_request, read_object
from stripe_emulator.keys import KeyState
from stripe_emulator.options import InvalidOptionError

DEFAULT_REQUESTS = 100


def inspection_routes(account: StripeAccount) -> list[web.RouteDef]:
    """Return the routes that read and control ``account``."""
    inspection = _Inspection(account)
    return [
        web.get("/_emulator/health", inspection.health),
        web.get("/_emulator/attempts", inspection.attempts),
        web.get("/_emulator/sums", inspection.sums),
        web.get("/_emulator/events", inspection.events),
        web.get("/_emulator/events/uncounted", inspection.uncounted),
        web.get("/_emulator/events/faults", inspection.event_faults),
        web.post("/_emulator/events/faults", inspection.add_event_fault),
        web.delete("/_emulator/events/faults", inspection.remove_event_faults),
        web.delete("/_emulator/events/faults/{id}", inspection.remove_event_faults),
        web.get("/_emulator/requests", inspection.requests),
        web.get("/_emulator/faults", inspection.faults),
        web.post("/_emulator/faults", inspection.add_fault),
        web.delete("/_emulator/faults", inspection.remove_faults),
        web.delete("/_emulator/faults/{id}", inspection.remove_faults),
        web.get("/_emulator/clock", inspection.clock),
        web.post("/_emulator/clock", inspection.set_clock),
        web.post("/_emulator/keys", inspection.put_key),
        web.get("/_emulator/options", inspection.options),
        web.post("/_emulator/options", inspection.change_options),
    ]


class _Inspection:
    def __init__(self, account: StripeAccount) -> None:
        self._account = account

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def attempts(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.request_log.attempts())

    async def sums(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.sums())

    async def events(self, _: web.Request) -> web.Response:
        counted = [
            {**event.view(), "meter": event.meter, "customer": event.customer}
            for events in self._account.events.by_meter_and_customer().values()
            for event in events
        ]
        return web.json_response(counted)

    async def uncounted(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.later_validation.listed())

    async def event_faults(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.later_validation.faults.listed())

    async def add_event_fault(self, request: web.Request) -> web.Response:
        try:
            fault = EventFault.read(await read_object(request))
        except InvalidFaultError as error:
            raise bad_request(str(error)) from error
        added = self._account.later_validation.faults.add(fault)
        return web.json_response({"id": added}, status=201)

    async def remove_event_faults(self, request: web.Request) -> web.Response:
        removed = self._account.later_validation.faults.remove(request.match_info.get("id"))
        return web.json_response({"removed": removed})

    async def requests(self, request: web.Request) -> web.Response:
        written = request.query.get("limit", str(DEFAULT_REQUESTS))
        if not written.isdigit():
            raise bad_request("limit must be a whole number")
        return web.json_response(self._account.request_log.requests(int(written)))

    async def faults(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.faults.listed())

    async def add_fault(self, request: web.Request) -> web.Response:
        try:
            fault = Fault.read(await read_object(request))
        except InvalidFaultError as error:
            raise bad_request(str(error)) from error
        return web.json_response({"id": self._account.faults.add(fault)}, status=201)

    async def remove_faults(self, request: web.Request) -> web.Response:
        removed = self._account.faults.remove(request.match_info.get("id"))
        return web.json_response({"removed": removed})

    async def clock(self, _: web.Request) -> web.Response:
        return web.json_response({"now": self._account.clock.now()})

    async def set_clock(self, request: web.Request) -> web.Response:
        match await read_object(request):
            case {"now": int() | float() as now, **rest} if not rest:
                self._account.clock.set(now)
            case {"advance": int() | float() as seconds, **rest} if not rest:
                self._account.clock.advance(seconds)
            case _:
                raise bad_request('wanted {"now": unix seconds} or {"advance": seconds}')
        return await self.clock(request)

    async def put_key(self, request: web.Request) -> web.Response:
        match await read_object(request):
            case {
                "key": str() as key,
                "state": "valid" | "revoked" | "restricted" as state,
                **rest,
            }:
                permissions = frozenset(map(str, rest.get("permissions", [])))
                self._account.keys.put(key, KeyState(state), permissions)
            case _:
                raise bad_request("wanted a key, and a state: valid, revoked or restricted")
        return web.json_response({"state": state})

    async def options(self, _: web.Request) -> web.Response:
        return web.json_response(self._account.options.view())

    async def change_options(self, request: web.Request) -> web.Response:
        try:
            self._account.options = self._account.options.changed(await read_object(request))
        except InvalidOptionError as error:
            raise bad_request(str(error)) from error
        return await self.options(request)
