"""What a service takes of the machine does not depend on what waits for it.

`benchmarks/memory.py` does the same with a million, for which 300 MB are promised. The bound here
is so much lower that a kilobyte kept of each message would exceed it.
"""

import pytest

from rig.endurance import SCENARIOS
from rig.platform import Platform

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MESSAGES = 50_000
MOST_MIB = 140.0
MOST_MIB_OF_LARGE = 300.0
"""What operations are promised."""


@pytest.mark.parametrize("scenario", ["recording", "claiming", "releasing"])
async def test_a_backlog_is_worked_off_within_bounded_memory(
    platform: Platform, scenario: str
) -> None:
    """Runs in the queue, due events, events of one user who becomes a customer: all get done."""
    measured = await SCENARIOS[scenario](platform, MESSAGES, 240)

    print(measured)
    assert measured.finished
    assert max(measured.peaks.values()) < MOST_MIB


@pytest.mark.parametrize("scenario", ["large-runs", "large-rubbish"])
async def test_large_messages_take_no_more_memory_than_the_limit_in_bytes(
    platform: Platform, scenario: str
) -> None:
    """Half a gigabyte or more waits, and all of it is done."""
    measured = await SCENARIOS[scenario](platform, MESSAGES, 400)

    print(measured)
    assert measured.finished
    assert max(measured.peaks.values()) < MOST_MIB_OF_LARGE


@pytest.mark.parametrize("scenario", ["reporting", "shut-out", "provisioning"])
async def test_a_backlog_that_cannot_be_worked_off_takes_no_memory(
    platform: Platform, scenario: str
) -> None:
    """Stripe is slow or refuses the key, or users come faster than they become customers."""
    measured = await SCENARIOS[scenario](platform, MESSAGES, 30)

    print(measured)
    assert not measured.finished
    assert max(measured.peaks.values()) < MOST_MIB
