"""Meters: their event name, their formula, and whether they are active."""

from dataclasses import dataclass, replace
from typing import Any

from stripe_emulator.errors import no_such, refused
from stripe_emulator.ids import new_id
from stripe_emulator.pages import page
from stripe_emulator.parameters import PAGING, Choice, Parameters, Text

_NAME_LENGTH, _DISPLAY_LENGTH, _KEY_LENGTH = 100, 250, 100
_URL = "/v1/billing/meters"

CREATE_METER = Parameters(
    {
        "display_name": Text(_DISPLAY_LENGTH),
        "event_name": Text(_NAME_LENGTH),
        "default_aggregation": Parameters(
            {"formula": Choice(("count", "last", "sum"))}, ("formula",)
        ),
        "customer_mapping": Parameters(
            {"event_payload_key": Text(_KEY_LENGTH), "type": Choice(("by_id",))},
            ("event_payload_key", "type"),
        ),
        "value_settings": Parameters(
            {"event_payload_key": Text(_KEY_LENGTH)}, ("event_payload_key",)
        ),
        "event_time_window": Choice(("day", "hour")),
    },
    ("default_aggregation", "display_name", "event_name"),
)
UPDATE_METER = Parameters({"display_name": Text(_DISPLAY_LENGTH)})
LIST_METERS = Parameters({**PAGING, "status": Choice(("active", "inactive"))})


@dataclass(frozen=True, slots=True)
class Meter:
    """One meter; times are unix seconds, ``deactivated_at`` is None while it is active."""

    id: str
    event_name: str
    display_name: str
    formula: str
    customer_key: str
    value_key: str
    event_time_window: str | None
    created: int
    updated: int
    deactivated_at: int | None = None

    @property
    def active(self) -> bool:
        """Return whether the meter accepts events."""
        return self.deactivated_at is None

    def view(self) -> dict[str, Any]:
        """Return the ``billing.meter`` object."""
        return {
            "id": self.id,
            "object": "billing.meter",
            "created": self.created,
            "customer_mapping": {"event_payload_key": self.customer_key, "type": "by_id"},
            "default_aggregation": {"formula": self.formula},
            "display_name": self.display_name,
            "event_name": self.event_name,
            "event_time_window": self.event_time_window,
            "livemode": False,
            "status": "active" if self.active else "inactive",
            "status_transitions": {"deactivated_at": self.deactivated_at},
            "updated": self.updated,
            "value_settings": {"event_payload_key": self.value_key},
        }


class Meters:
    """All meters of the account; at most one active meter has a given event name."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._active: dict[str, str] = {}

    def create(self, params: dict[str, Any], now: float) -> Meter:
        """Create a meter from parameters read by ``CREATE_METER``."""
        self._require_free(params["event_name"])
        mapping = params.get("customer_mapping", {})
        meter = Meter(
            id=new_id("mtr_test", 24),
            event_name=params["event_name"],
            display_name=params["display_name"],
            formula=params["default_aggregation"]["formula"],
            customer_key=mapping.get("event_payload_key", "stripe_customer_id"),
            value_key=params.get("value_settings", {}).get("event_payload_key", "value"),
            event_time_window=params.get("event_time_window"),
            created=int(now),
            updated=int(now),
        )
        return self._keep(meter)

    def get(self, id_: str, param: str = "id", status: int = 404) -> Meter:
        """Return a meter; ``status`` when there is none."""
        meter = self._meters.get(id_)
        if meter is None:
            raise no_such("billing meter", id_, param, status)
        return meter

    def active_for(self, event_name: str) -> Meter | None:
        """Return the active meter of an event name, if there is one."""
        id_ = self._active.get(event_name)
        return None if id_ is None else self._meters[id_]

    def rename(self, id_: str, params: dict[str, Any], now: float) -> Meter:
        """Change the display name, as read by ``UPDATE_METER``."""
        return self._keep(replace(self.get(id_), **params, updated=int(now)))

    def deactivate(self, id_: str, now: float) -> Meter:
        """Make the meter refuse events."""
        meter = self.get(id_)
        if not meter.active:
            raise refused("The meter is already inactive.")
        del self._active[meter.event_name]
        return self._keep(replace(meter, deactivated_at=int(now), updated=int(now)))

    def reactivate(self, id_: str, now: float) -> Meter:
        """Make an inactive meter accept events again."""
        meter = self.get(id_)
        if meter.active:
            raise refused("The meter is already active.")
        self._require_free(meter.event_name)
        return self._keep(replace(meter, deactivated_at=None, updated=int(now)))

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of meters, the newest first."""
        meters = [meter.view() for meter in reversed(self._meters.values())]
        if "status" in params:
            meters = [meter for meter in meters if meter["status"] == params["status"]]
        return page(meters, _URL, "billing meter", params)

    def _require_free(self, event_name: str) -> None:
        if event_name in self._active:
            message = f'There is already an active meter with the event name "{event_name}".'
            raise refused(message, "event_name")

    def _keep(self, meter: Meter) -> Meter:
        self._meters[meter.id] = meter
        if meter.active:
            self._active[meter.event_name] = meter.id
        return meter
