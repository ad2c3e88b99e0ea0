"""A service's memory does not depend on its backlog.

`benchmarks/memory.py` does the same with a million messages, for which 300 MB are promised. The
bound here is so much lower that a kilobyte kept of each message would exceed it.
"""

import pytest

from support.load_scenarios import SCENARIOS
from support.platform import Platform

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

MESSAGES = 50_000
MAX_MIB = 140.0
MAX_MIB_OF_LARGE = 300.0
"""The bound that the operating manual promises."""


@pytest.mark.parametrize("scenario", ["recording", "claiming", "releasing"])
async def test_backlog_is_processed_within_140_mib(platform: Platform, scenario: str) -> None:
    """Queued runs, due events, events of one user who becomes a customer."""
    measured = await SCENARIOS[scenario](platform, MESSAGES, 240)

    print(measured)
    assert measured.finished
    assert max(measured.peaks.values()) < MAX_MIB


@pytest.mark.parametrize("scenario", ["large-runs", "large-rubbish"])
async def test_large_messages_are_processed_within_300_mib(
    platform: Platform, scenario: str
) -> None:
    """Half a gigabyte or more is queued, and all of it is processed."""
    measured = await SCENARIOS[scenario](platform, MESSAGES, 400)

    print(measured)
    assert measured.finished
    assert max(measured.peaks.values()) < MAX_MIB_OF_LARGE


@pytest.mark.parametrize("scenario", ["reporting", "shut-out", "provisioning"])
async def test_backlog_that_stays_takes_no_more_than_140_mib(
    platform: Platform, scenario: str
) -> None:
    """Stripe is slow or refuses the key, or users come faster than customers are created."""
    measured = await SCENARIOS[scenario](platform, MESSAGES, 30)

    print(measured)
    assert not measured.finished
    assert max(measured.peaks.values()) < MAX_MIB
