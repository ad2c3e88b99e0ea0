"""Webhook endpoints: where events are sent, which, and by what secret they are signed."""

import hmac
from hashlib import sha256
from typing import Any

from stripe_emulator.errors import invalid_parameter
from stripe_emulator.ids import new_id
from stripe_emulator.objects import Objects
from stripe_emulator.pages import page
from stripe_emulator.parameters import (
    PAGING,
    Array,
    Boolean,
    Metadata,
    Parameters,
    Text,
    merged_metadata,
)

_URL = "/v1/webhook_endpoints"
CREATE_ENDPOINT = Parameters(
    {
        "api_version": Text(),
        "description": Text(unsettable=True),
        "enabled_events": Array(Text(), 250),
        "metadata": Metadata(),
        "url": Text(),
    },
    ("enabled_events", "url"),
)
UPDATE_ENDPOINT = Parameters(
    {
        "description": Text(unsettable=True),
        "disabled": Boolean(),
        "enabled_events": Array(Text(), 250),
        "metadata": Metadata(),
        "url": Text(),
    }
)
LIST_ENDPOINTS = Parameters(PAGING)


class WebhookEndpoints:
    """All endpoints of the account; a secret is shown once, when its endpoint is created."""

    def __init__(self) -> None:
        self._objects = Objects("webhook endpoint")
        self._secrets: dict[str, list[str]] = {}

    def create(
        self, params: dict[str, Any], now: float, secret: str | None = None
    ) -> dict[str, Any]:
        """Create an endpoint from parameters read by ``CREATE_ENDPOINT``, with a secret of ours."""
        _require_http(params["url"])
        endpoint = {
            "id": new_id("we", 24),
            "object": "webhook_endpoint",
            "api_version": params.get("api_version"),
            "application": None,
            "created": int(now),
            "description": params.get("description"),
            "enabled_events": params["enabled_events"],
            "livemode": False,
            "metadata": params.get("metadata", {}),
            "status": "enabled",
            "url": params["url"],
        }
        self._secrets[endpoint["id"]] = [secret or new_id("whsec", 32)]
        kept = self._objects.put(endpoint, now)
        return {**kept, "secret": self._secrets[endpoint["id"]][0]}

    def update(self, id_: str, params: dict[str, Any], now: float) -> dict[str, Any]:
        """Change the given fields."""
        before = self._objects.get(id_)
        changes = {name: value for name, value in params.items() if name != "disabled"}
        if "url" in params:
            _require_http(params["url"])
        if "disabled" in params:
            changes["status"] = "disabled" if params["disabled"] else "enabled"
        if "metadata" in params:
            changes["metadata"] = merged_metadata(before["metadata"], params["metadata"])
        return self._objects.put({**before, **changes}, now)

    def delete(self, id_: str, now: float) -> dict[str, Any]:
        """Delete an endpoint, which gets no attempt any more."""
        self._objects.remove(id_, now)
        return {"id": id_, "object": "webhook_endpoint", "deleted": True}

    def get(self, id_: str) -> dict[str, Any]:
        """Return an endpoint; 404 for an unknown id."""
        return self._objects.get(id_)

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of endpoints, the newest first."""
        return page([*self._objects.newest_first()], _URL, "webhook endpoint", params)

    def wanting(self, event_type: str) -> list[dict[str, Any]]:
        """Return the endpoints that get events of a type."""
        return [
            one
            for one in self._objects.newest_first()
            if one["status"] == "enabled" and {"*", event_type} & {*one["enabled_events"]}
        ]

    def roll_secret(self, id_: str, secret: str) -> None:
        """Sign with a new secret, too, as during a rotation until the old one expires."""
        self._objects.get(id_)
        self._secrets[id_].append(secret)

    def expire_secret(self, id_: str) -> None:
        """Let the oldest secret expire."""
        self._objects.get(id_)
        del self._secrets[id_][0]

    def signature(self, id_: str, body: str, timestamp: int) -> str:
        """Return the ``Stripe-Signature`` of a body, by every secret of the endpoint."""
        signed = f"{timestamp}.{body}".encode()
        digests = [
            hmac.new(secret.encode(), signed, sha256).hexdigest() for secret in self._secrets[id_]
        ]
        return ",".join([f"t={timestamp}", *(f"v1={digest}" for digest in digests)])


def _require_http(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise invalid_parameter("url", "Invalid URL: An explicit scheme must be provided.")
