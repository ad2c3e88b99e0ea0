"""A client of the inspection API, for tests that run an emulator in another process."""

from types import TracebackType
from typing import Any, Literal, Self, TypedDict, cast

import aiohttp


class AttemptsView(TypedDict):
    """The results of all requests with one identifier."""

    attempts: int
    accepted: int
    duplicates: int
    replayed: int
    last_status: int | None
    idempotency_keys: list[str]


class SumView(TypedDict):
    """What one meter (by id) counted for one customer."""

    customer: str
    meter: str
    event_name: str
    value: float
    events: int


class UncountedView(TypedDict):
    """An accepted meter event that is not counted: ``dropped``, or ``rejected`` by a ``code``.

    ``sampled`` says whether an error report may name its ``idempotency_key``.
    """

    identifier: str
    event_name: str
    meter: str
    customer: str
    payload: dict[str, str]
    timestamp: int
    created: int
    kind: str
    code: str | None
    idempotency_key: str | None
    sampled: bool


class RequestView(TypedDict):
    """One request; ``status`` is None when none was sent, ``fault`` such as ``reset:after``."""

    at: float
    request_id: str
    method: str
    path: str
    idempotency_key: str | None
    identifier: str | None
    status: int | None
    replayed: bool
    fault: str | None
    error: str | None
    param: str | None


class AttemptView(TypedDict):
    """One request to a webhook endpoint; ``status`` is None if it did not answer."""

    at: float
    status: int | None
    error: str | None


class DeliveryView(TypedDict):
    """One event to one endpoint; ``state`` as ``deliveries.DeliveryState`` has it."""

    id: str
    event: str
    type: str
    endpoint: str
    state: str
    due: float
    attempts: list[AttemptView]


class InspectionError(Exception):
    """The inspection API refused a request; the text says why."""


class EmulatorClient:
    """Reads and controls a running emulator.

    Use it as an async context manager, or call ``close`` at the end.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/_emulator"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def healthy(self) -> bool:
        """Return whether the emulator answers."""
        try:
            return bool((await self._ask("GET", "health"))["status"] == "ok")
        except aiohttp.ClientError:
            return False

    async def attempts(self) -> dict[str, AttemptsView]:
        """Return the attempts of every meter event identifier."""
        return cast("dict[str, AttemptsView]", await self._ask("GET", "attempts"))

    async def sums(self) -> list[SumView]:
        """Return what was counted, per meter and customer, without any delay."""
        return cast("list[SumView]", await self._ask("GET", "sums"))

    async def events(self) -> list[dict[str, Any]]:
        """Return every counted meter event, with ``meter`` and ``customer`` beside its fields."""
        return cast("list[dict[str, Any]]", await self._ask("GET", "events"))

    async def uncounted(self) -> list[UncountedView]:
        """Return every meter event that was accepted and is not counted, in their order."""
        return cast("list[UncountedView]", await self._ask("GET", "events/uncounted"))

    async def add_event_fault(self, kind: str, **conditions: Any) -> str:
        """Add a fault of accepted events; its fields are those of ``event_faults.EventFault``."""
        answer = await self._ask("POST", "events/faults", {"kind": kind, **conditions})
        return str(answer["id"])

    async def event_faults(self) -> list[dict[str, Any]]:
        """Return the faults of accepted events, with how often each fired."""
        return cast("list[dict[str, Any]]", await self._ask("GET", "events/faults"))

    async def remove_event_faults(self, id_: str | None = None) -> int:
        """Remove one fault of accepted events, or all, and return how many that were."""
        answer = await self._ask("DELETE", f"events/faults/{id_}" if id_ else "events/faults")
        return int(answer["removed"])

    async def requests(self, limit: int = 100) -> list[RequestView]:
        """Return the last requests to the API, the newest last."""
        return cast("list[RequestView]", await self._ask("GET", f"requests?limit={limit}"))

    async def add_fault(self, kind: str, **conditions: Any) -> str:
        """Add a fault and return its id; its fields are those of ``faults.Fault``."""
        answer = await self._ask("POST", "faults", {"kind": kind, **conditions})
        return str(answer["id"])

    async def faults(self) -> list[dict[str, Any]]:
        """Return the faults, with how often each fired."""
        return cast("list[dict[str, Any]]", await self._ask("GET", "faults"))

    async def remove_faults(self, id_: str | None = None) -> int:
        """Remove one fault, or all, and return how many that were."""
        answer = await self._ask("DELETE", "faults" if id_ is None else f"faults/{id_}")
        return int(answer["removed"])

    async def now(self) -> float:
        """Return the account's time in unix seconds."""
        return float((await self._ask("GET", "clock"))["now"])

    async def set_clock(self, now: float) -> None:
        """Set the account's time, in unix seconds; it runs on from there."""
        await self._ask("POST", "clock", {"now": now})

    async def advance_clock(self, seconds: float) -> None:
        """Move the account's time by ``seconds``."""
        await self._ask("POST", "clock", {"advance": seconds})

    async def set_key(
        self,
        key: str,
        state: Literal["valid", "revoked", "restricted"],
        permissions: tuple[str, ...] = (),
    ) -> None:
        """Add an API key or change its state; see ``stripe_emulator.keys.ApiKeys.put``."""
        described = {"key": key, "state": state, "permissions": list(permissions)}
        await self._ask("POST", "keys", described)

    async def options(self) -> dict[str, Any]:
        """Return the account's options."""
        return cast("dict[str, Any]", await self._ask("GET", "options"))

    async def set_options(self, **changes: float | bool) -> None:
        """Change some of the account's options; see ``stripe_emulator.options.Options``."""
        await self._ask("POST", "options", changes)

    async def add_webhook(self, url: str, secret: str, events: tuple[str, ...] = ("*",)) -> str:
        """Add a webhook endpoint and return its id."""
        described = {"url": url, "secret": secret, "events": list(events)}
        return str((await self._ask("POST", "webhooks/endpoints", described))["id"])

    async def webhooks(self) -> list[DeliveryView]:
        """Return the deliveries of all events, in the order of the events."""
        return cast("list[DeliveryView]", await self._ask("GET", "webhooks"))

    async def release_webhooks(self, *ids: str) -> list[DeliveryView]:
        """Send held deliveries one after the other, all if none is named; return them then."""
        described = {"deliveries": list(ids) or None}
        sent = await self._ask("POST", "webhooks/release", described)
        return cast("list[DeliveryView]", sent)

    async def resend_webhook(self, event_id: str) -> list[DeliveryView]:
        """Send an event once more, and return its deliveries once they have been answered."""
        sent = await self._ask("POST", "webhooks/resend", {"event": event_id})
        return cast("list[DeliveryView]", sent)

    async def add_webhook_fault(self, kind: str, **conditions: Any) -> str:
        """Add a fault of webhooks; its fields are those of ``delivery_faults.DeliveryFault``."""
        answer = await self._ask("POST", "webhooks/faults", {"kind": kind, **conditions})
        return str(answer["id"])

    async def remove_webhook_faults(self) -> int:
        """Remove all faults of webhooks and return how many that were."""
        return int((await self._ask("DELETE", "webhooks/faults"))["removed"])

    async def emit(self, type_: str, **described: Any) -> str:
        """Make an event that no call has caused, and return its id.

        With ``object`` it is a snapshot event, else a thin one with ``related_object`` and
        ``data``; ``livemode`` makes it one of live mode.
        """
        answer = await self._ask("POST", "webhooks/events", {"type": type_, **described})
        return str(answer["id"])

    async def set_subscription_status(self, id_: str, status: str) -> None:
        """Set the status that payments would bring, such as ``past_due``."""
        await self._ask("POST", f"subscriptions/{id_}", {"status": status})

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        url = f"{self._url}/{path}"
        async with self._session.request(method, url, json=body) as response:
            answer = await response.json()
            if not response.ok:
                raise InspectionError(answer["error"])
            return answer
