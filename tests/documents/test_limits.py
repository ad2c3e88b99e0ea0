"""Limits and names that are written in several places agree: no package may import another's."""

import math
import re
from typing import Final

import pytest

import nexus_outbox.events_api
import nexus_publisher.amqp
import nexus_publisher.delivery
import nexus_publisher.http
import nexus_publisher.lanes
from customer_provisioner import changes
from nexus_contracts import MAX_BODY_BYTES
from nexus_messaging.topology import EVENTS
from nexus_outbox.storage import BATCH
from nexus_service import problems
from nexus_service.api_keys import FULL_BATCH
from support.node import PUBLISHER
from support.pages import DOCS
from usage_ingest import metering
from usage_ingest.events_api import bodies, http

MIB: Final = 1024 * 1024


def typescript(module: str, constant: str) -> int:
    """Return a constant of the TypeScript package, which is a product of numbers."""
    text = (PUBLISHER / "src" / module).read_text(encoding="utf-8")
    [product] = re.findall(rf"^(?:export )?const {constant} = ([\d_ *]+);", text, re.MULTILINE)
    return math.prod(int(factor) for factor in product.split("*"))


@pytest.mark.parametrize(
    ("events", "size"),
    [
        (nexus_publisher.lanes.MAX_EVENTS, nexus_publisher.delivery.MAX_BATCH_BYTES),
        (BATCH, nexus_outbox.events_api.PORTION_BYTES),
        (
            typescript("delivery.ts", "MAX_EVENTS_PER_REQUEST"),
            typescript("delivery.ts", "MAX_BYTES_PER_REQUEST"),
        ),
    ],
    ids=["Python", "outbox", "TypeScript"],
)
def test_a_publisher_s_batch_is_one_that_the_api_takes(events: int, size: int) -> None:
    """One event may come on top of the bytes, and each has a comma."""
    assert events <= FULL_BATCH
    assert size + MAX_BODY_BYTES + events < bodies.MAX_REQUEST_BYTES


def test_publishers_and_consumers_have_the_same_constants() -> None:
    """Those that are written again where the package of the first may not be imported."""
    assert typescript("publisher.ts", "MAX_EVENT_BYTES") == MAX_BODY_BYTES
    assert nexus_publisher.amqp.EXCHANGE == EVENTS
    assert nexus_publisher.http.PROBLEM_TYPE == problems.CONTENT_TYPE
    assert changes.FUTURE_TOLERANCE == metering.FUTURE_TOLERANCE


def section(page: str, heading: str) -> str:
    """Return a section of a page on one line."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return " ".join(text.split(f"\n## {heading}\n")[1].split("\n## ")[0].split())


@pytest.mark.parametrize(
    ("page", "heading"), [("publishing.md", "Limits"), ("operations.md", "HTTP APIs")]
)
def test_pages_name_the_limits_of_the_events_api(page: str, heading: str) -> None:
    """Their section is what publishers and operators read."""
    written = section(page, heading)

    for limit in (
        f"{FULL_BATCH:,} events",
        f"{bodies.MAX_REQUEST_BYTES // MIB} MiB",
        f"{MAX_BODY_BYTES // 1024} KiB",
        f"{bodies.BODY_SECONDS:.0f} s",
    ):
        assert limit in written


def test_operations_names_the_time_and_the_memory_of_the_events_api() -> None:
    """What an operator sizes a process and its proxy by."""
    written = section("operations.md", "HTTP APIs")

    assert f"the broker's confirms {http.PUBLISH_SECONDS:.0f} s" in written
    assert f"{bodies.MAX_BYTES_IN_HAND // MIB} MiB of bodies" in written
