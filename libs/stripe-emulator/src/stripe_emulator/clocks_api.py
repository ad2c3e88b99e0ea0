"""The endpoints of test clocks."""

from typing import Final

from stripe_emulator.customer_clocks import ADVANCE_CLOCK, CREATE_CLOCK, LIST_CLOCKS
from stripe_emulator.endpoints import Endpoint, resource
from stripe_emulator.parameters import NOTHING

_CLOCKS, _CLOCK = "/v1/test_helpers/test_clocks", "/v1/test_helpers/test_clocks/{id}"

CLOCKS: Final[tuple[Endpoint, ...]] = tuple(
    resource(
        "billing_clock",
        ("POST", _CLOCKS, CREATE_CLOCK, lambda a, _, p: a.customer_clocks.create(p)),
        ("GET", _CLOCKS, LIST_CLOCKS, lambda a, _, p: a.customer_clocks.listed(p)),
        ("GET", _CLOCK, NOTHING, lambda a, i, _: a.customer_clocks.get(i)),
        ("DELETE", _CLOCK, NOTHING, lambda a, i, _: a.delete_clock(i)),
        (
            "POST",
            f"{_CLOCK}/advance",
            ADVANCE_CLOCK,
            lambda a, i, p: a.advance_clock(i, p["frozen_time"]),
        ),
    )
)
