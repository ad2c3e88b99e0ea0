"""Test clocks: the time of a few customers, which stands still until it is advanced.

https://docs.stripe.com/billing/testing/test-clocks/api-advanced-usage
"""

from collections.abc import Sequence
from typing import Any

from stripe_emulator.clock import Clock
from stripe_emulator.errors import invalid_parameter
from stripe_emulator.event_log import Record
from stripe_emulator.ids import new_id
from stripe_emulator.objects import Objects
from stripe_emulator.pages import page
from stripe_emulator.parameters import PAGING, Integer, Parameters, Text

MAX_CUSTOMERS = 3
"""Customers of one clock."""

MAX_SUBSCRIPTIONS = 3
"""Subscriptions of one customer of a clock."""

KEPT_SECONDS = 30 * 24 * 3600
_URL = "/v1/test_helpers/test_clocks"

CREATE_CLOCK = Parameters({"frozen_time": Integer(minimum=0), "name": Text(300)}, ("frozen_time",))
ADVANCE_CLOCK = Parameters({"frozen_time": Integer(minimum=0)}, ("frozen_time",))
LIST_CLOCKS = Parameters(PAGING)


class CustomerClocks:
    """All test clocks, beside the account's own, which is the time of everybody else."""

    def __init__(self, account_clock: Clock, record: Record) -> None:
        self._account_clock = account_clock
        self._record = record
        self._objects = Objects("test clock")

    def now(self, id_: str | None) -> float:
        """Return the time by a test clock, or by the account's for None, in unix seconds."""
        if id_ is None:
            return self._account_clock.now()
        return float(self.get(id_)["frozen_time"])

    def create(self, params: dict[str, Any]) -> dict[str, Any]:
        """Create a clock from parameters read by ``CREATE_CLOCK``."""
        now = int(self._account_clock.now())
        clock = {
            "id": new_id("clock", 24),
            "object": "test_helpers.test_clock",
            "created": now,
            "deletes_after": now + KEPT_SECONDS,
            "frozen_time": params["frozen_time"],
            "livemode": False,
            "name": params.get("name"),
            "status": "ready",
            "status_details": {},
        }
        return self._keep("created", clock)

    def get(self, id_: str, param: str = "id", status: int = 404) -> dict[str, Any]:
        """Return a clock; ``status`` when there is none."""
        return self._objects.get(id_, param, status)

    def listed(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return one page of clocks, the newest first."""
        return page([*self._objects.newest_first()], _URL, "test clock", params)

    def advance(self, id_: str, target: int, furthest: int) -> dict[str, Any]:
        """Begin to advance a clock; ``move`` carries it out.

        Raises:
            StripeError: 400 unless ``target`` is later than now and at most ``furthest``.
        """
        clock = self.get(id_)
        if target <= clock["frozen_time"]:
            message = "The time to advance to must be after the test clock's current frozen time."
            raise invalid_parameter("frozen_time", message)
        if target > furthest:
            message = (
                "The time to advance to cannot be more than two intervals in the future from the "
                "shortest subscription of the test clock, or two years if it has none."
            )
            raise invalid_parameter("frozen_time", message)
        details = {"advancing": {"target_frozen_time": target}}
        return self._keep("advancing", {**clock, "status": "advancing", "status_details": details})

    def move(self) -> list[str]:
        """Move the advancing clocks to their targets and return their ids."""
        moved = [one for one in self._objects.newest_first() if one["status"] == "advancing"]
        for clock in moved:
            target = clock["status_details"]["advancing"]["target_frozen_time"]
            self._put({**clock, "frozen_time": target})
        return [clock["id"] for clock in moved]

    def finish(self, ids: Sequence[str]) -> None:
        """Make moved clocks ready, once what their time brings has happened."""
        for id_ in ids:
            self._keep("ready", {**self.get(id_), "status": "ready", "status_details": {}})

    def delete(self, id_: str) -> dict[str, Any]:
        """Delete a clock, whose customers have to be deleted before."""
        self._record("test_helpers.test_clock.deleted", self.get(id_))
        self._objects.remove(id_, self._account_clock.now())
        return {"id": id_, "object": "test_helpers.test_clock", "deleted": True}

    def _keep(self, kind: str, clock: dict[str, Any]) -> dict[str, Any]:
        kept = self._put(clock)
        self._record(f"test_helpers.test_clock.{kind}", kept)
        return kept

    def _put(self, clock: dict[str, Any]) -> dict[str, Any]:
        return self._objects.put(clock, self._account_clock.now())
