"""What the plans of ``deploy/plans.yaml`` make of tool runs, worked out apart from the product."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from local_stack.catalogue import METER
from metering_chaos.evidence import Evidence, ModelUsage, ToolRun
from metering_chaos.plan_file import MICRO_USD

PREMIUM_METER: Final = "premium_tool_calls"
COST_METER: Final = "llm_cost_micros"
TOOLS_METER: Final = "unique_tools"

PREMIUM_SERVERS: Final = frozenset({"browser", "sql-reports"})
MARKUP_PERCENT: Final = {"free": 30, "pro": 20, "enterprise": 0}
ENTERPRISE: Final = "enterprise"
"""This plan counts premium runs as all others, and tools in use."""


@dataclass(slots=True)
class Charge:
    """What a claim's report for one meter has to be: its value, and of how many readings."""

    value: int = 0
    readings: int = 0


class Payers:
    """Who pays for a user, and the plan of who pays: the user, on the plan Free, if nobody else."""

    def __init__(self, evidence: Evidence) -> None:
        self._organisations = {
            member: each for each in evidence.organisations for member in each.members
        }

    def account(self, user: UUID) -> UUID:
        """Return the account that pays for a user."""
        found = self._organisations.get(user)
        return user if found is None else found.account

    def plan(self, user: UUID) -> str:
        """Return the plan of that account."""
        found = self._organisations.get(user)
        return "free" if found is None else found.plan


def cost(usage: ModelUsage) -> int:
    """Return what a run's tokens cost, in micro-USD."""
    read, written = MICRO_USD[usage.model]
    return usage.input_tokens * read + usage.output_tokens * written


def charges(evidence: Evidence) -> Mapping[tuple[UUID, str], Charge]:
    """Work out what each claim has to charge on each meter.

    What tokens cost is of the claim of their run, or, if it came later, of a claim of its own. A
    claim is of one account, so its costs get one markup, once: half a unit is rounded up.
    """
    payers, found = Payers(evidence), defaultdict[tuple[UUID, str], Charge](Charge)
    late = {each.event_id: each for each in evidence.late_readings}
    percent: dict[UUID, int] = {}
    for event in evidence.events:
        plan = payers.plan(event.run.user)
        if event.claim is not None:
            _add(found[event.claim, run_meter(event.run, plan)], 1)
        if event.usage is None or not event.run.billable:
            continue
        claim = late[event.event_id].claim if event.event_id in late else event.claim
        if claim is not None:
            _add(found[claim, COST_METER], cost(event.usage))
            percent[claim] = 100 + MARKUP_PERCENT[plan]
    for claim, of_cost in percent.items():
        charge = found[claim, COST_METER]
        charge.value = (charge.value * of_cost + 50) // 100
    for use in evidence.first_uses:
        _add(found[use.claim, TOOLS_METER], 1)
    return found


def run_meter(run: ToolRun, plan: str) -> str:
    """Return the meter that a run itself counts on."""
    return PREMIUM_METER if run.server in PREMIUM_SERVERS and plan != ENTERPRISE else METER


def tools_in_use(evidence: Evidence) -> set[tuple[UUID, str, str]]:
    """Return the tools of the billed runs of accounts whose plan counts them, by account."""
    payers = Payers(evidence)
    return {
        (payers.account(each.run.user), each.run.server, each.run.tool)
        for each in evidence.events
        if each.claim is not None and payers.plan(each.run.user) == ENTERPRISE
    }


def _add(charge: Charge, value: int) -> None:
    charge.value += value
    charge.readings += 1
