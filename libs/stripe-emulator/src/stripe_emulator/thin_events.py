"""Thin events: notices of API v2, whose data is fetched by their id."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from stripe_emulator.errors import invalid_parameter
from stripe_emulator.forms import FormValue
from stripe_emulator.ids import new_id
from stripe_emulator.parameters import Integer, Parameters, Text, Texts, is_within

URL = "/v2/core/events"
DEFAULT_LIMIT = 20
THIN: Final = "v2.core.event"
"""What a thin event is called in ``object``."""


class Moment:
    """A time in RFC 3339."""

    def read(self, value: FormValue, param: str) -> float:
        """Return it in unix seconds."""
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            raise invalid_parameter(param, "Invalid timestamp: must be RFC 3339.") from None
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


LIST_THIN_EVENTS = Parameters(
    {
        "created": Parameters({name: Moment() for name in ("gt", "gte", "lt", "lte")}),
        "limit": Integer(minimum=1, maximum=100),
        "object_id": Text(),
        "page": Integer(minimum=0),
        "types": Texts(),
    }
)


def thin_event(
    now: float,
    type_: str,
    data: Mapping[str, Any] | None,
    related_object: Mapping[str, Any] | None,
    *,
    livemode: bool = False,
) -> dict[str, Any]:
    """Return a thin event of ``now`` (unix seconds), with the data that it is sent without."""
    return {
        "id": new_id("evt_test", 24),
        "object": THIN,
        "context": None,
        "created": timestamp(now),
        "data": data,
        "livemode": livemode,
        "reason": None,
        "related_object": related_object,
        "type": type_,
    }


def timestamp(moment: float) -> str:
    """Return unix seconds as API v2 writes times: RFC 3339 in UTC, with milliseconds."""
    written = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return written.replace("+00:00", "Z")


def list_thin_events(events: Iterable[dict[str, Any]], params: dict[str, Any]) -> dict[str, Any]:
    """Return one page of thin events, in their order, as API v2 lists them: by addresses of pages.

    Args:
        events: All thin events, the newest first.
        params: Read by ``LIST_THIN_EVENTS``.
    """
    first, limit = params.get("page", 0), params.get("limit", DEFAULT_LIMIT)
    found = [event for event in events if _is_wanted(event, params)]

    return {
        "data": found[first : first + limit],
        "next_page_url": _address(first + limit, params) if len(found) > first + limit else None,
        "previous_page_url": _address(max(0, first - limit), params) if first else None,
    }


def _address(page: int, params: dict[str, Any]) -> str:
    """Return the address of another page of the same list."""
    query: dict[str, str] = {}
    for name in ("limit", "object_id"):
        if name in params:
            query[name] = str(params[name])
    for name, moment in params.get("created", {}).items():
        query[f"created[{name}]"] = timestamp(moment)
    for place, type_ in enumerate(params.get("types", [])):
        query[f"types[{place}]"] = type_
    return f"{URL}?{urlencode(query | {'page': str(page)})}"


def _is_wanted(event: dict[str, Any], params: dict[str, Any]) -> bool:
    created = datetime.fromisoformat(event["created"]).timestamp()
    related = event["related_object"] or {}
    return (
        is_within(created, params.get("created", {}))
        and params.get("object_id") in (None, related.get("id"))
        and ("types" not in params or event["type"] in params["types"])
    )
