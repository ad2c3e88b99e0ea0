"""A restored ledger bills nothing twice of what stands beside its runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from integration.usage_ingest.lost_ledger import LATER, LostLedger
from integration.usage_ingest.priced import FILE_WITH_NEW, WITH_NEW, PricedLedger
from usage_ingest.metering import ToolRun


class Adoption:
    """A ledger with plans that is lost, restored and completed."""

    def __init__(self, lost: LostLedger, plans_file: Path) -> None:
        self.lost = lost
        self.plans_file = plans_file
        self.ledger_dimensions: tuple[str, ...] = ()

    @property
    def ledger(self) -> PricedLedger:
        """The ledger as it is now."""
        return PricedLedger(self.lost.database)

    async def bill(self) -> int:
        """Price and claim all that there is; return how many reports there are then."""
        await self.ledger.price_late(now=LATER)
        claims = self.ledger.claims(WITH_NEW, self.ledger_dimensions)
        await claims.claim_late(LATER)
        await claims.claim(LATER)
        return len(await self.ledger.reports())

    async def adopt(self, calls: str) -> tuple[int, list[str]]:
        """Complete the restored ledger with the file that has all prices."""
        return await self.lost.adopt(calls, "--execute", PLANS_FILE=str(self.plans_file))

    async def lose(self, *again: ToolRun, plans: Any = None) -> tuple[int, Sequence[str]]:
        """Lose the ledger, record runs that come again, and complete it; return code and faults."""
        before = await self.ledger.reports()
        calls = await self.lost.lose()
        if again:
            await self.ledger.record(*again, plans=plans, now=LATER)
        code, lines = await self.adopt(calls)
        await self.bill()
        assert await self.ledger.reports() == before
        return code, lines[1:]


@pytest.fixture
def adoption(lost: LostLedger, tmp_path: Path) -> Adoption:
    """Return an empty ledger with one customer."""
    plans_file = tmp_path / "plans.yaml"
    plans_file.write_text(FILE_WITH_NEW, "utf-8")
    return Adoption(lost, plans_file)


def runs(ledger: PricedLedger) -> list[ToolRun]:
    """Return three runs of one window, two of them of the model that has no price at first."""
    return [ledger.tokens("new", 1), ledger.tokens("known", 2), ledger.tokens("new", 3)]


async def test_late_reading_of_the_backup_is_not_reported_again(adoption: Adoption) -> None:
    """It was priced before the backup, and reported after it."""
    await adoption.ledger.record(*runs(adoption.ledger))
    await adoption.ledger.price_late()
    adoption.lost.back_up()
    await adoption.bill()

    assert await adoption.lose() == (0, [])


async def test_run_that_lacks_its_price_again_is_not_reported_again(adoption: Adoption) -> None:
    """It was recorded before the backup, and priced after it."""
    await adoption.ledger.record(*runs(adoption.ledger))
    adoption.lost.back_up()
    await adoption.bill()

    assert await adoption.lose() == (0, [])


async def test_run_that_is_published_again_is_not_reported_again(adoption: Adoption) -> None:
    """It was recorded after the backup, and lacks its price again."""
    adoption.lost.back_up()
    again = runs(adoption.ledger)
    await adoption.ledger.record(*again)
    await adoption.bill()

    assert await adoption.lose(*again) == (0, [])


async def test_run_that_has_its_price_at_once_by_now_is_not_reported_again(
    adoption: Adoption,
) -> None:
    """Its cost is among its own readings, and is the late report's all the same.

    Which run a report summed up is not known. All of them are back, so nothing differs.
    """
    adoption.lost.back_up()
    again = runs(adoption.ledger)
    await adoption.ledger.record(*again)
    await adoption.bill()

    assert await adoption.lose(*again, plans=WITH_NEW) == (0, [])
    assert await adoption.ledger.run_sql("SELECT count(*) FROM late_readings") == [(2,)]


async def test_cost_that_differs_by_more_than_rounding_is_named(adoption: Adoption) -> None:
    """One of the runs comes again with other tokens than were reported."""
    adoption.lost.back_up()
    again = runs(adoption.ledger)
    await adoption.ledger.record(*again)
    await adoption.bill()
    again[1] = adoption.ledger.tokens("known", 2, input_tokens=110)

    code, faults = await adoption.lose(*again, plans=WITH_NEW)

    assert (code, faults) == (
        1,
        ["cus_one micros: reported -15 beside what the claimed events read"],
    )


async def test_late_reading_that_did_not_come_back_is_missing(adoption: Adoption) -> None:
    """Its run has to be published again, before anything is reported."""
    adoption.lost.back_up()
    await adoption.ledger.record(adoption.ledger.tokens("new", 1))
    await adoption.bill()
    calls = await adoption.lost.lose()

    code, lines = await adoption.adopt(calls)

    assert code == 1
    assert any(line.startswith("events missing, to be published again: 2") for line in lines)


async def test_tool_that_was_counted_is_not_counted_again(adoption: Adoption) -> None:
    """The first uses of a period are restored with the claims of their runs."""
    await adoption.ledger.subscribe("team")
    adoption.lost.back_up()
    first = [adoption.ledger.tokens(None, number, tool_name=f"t{number}") for number in range(3)]
    await adoption.ledger.record(*first)
    await adoption.bill()
    assert await adoption.lose(*first) == (0, [])

    await adoption.ledger.record(adoption.ledger.tokens(None, 30, tool_name="t1"))
    await adoption.bill()

    counted = [each for each in await adoption.ledger.reports() if each[0] == "tools"]
    assert counted == [("tools", 3, 3, True)]


async def test_tool_that_a_lost_plan_counted_is_not_counted_again(adoption: Adoption) -> None:
    """The account has another plan by now, so the one that counted it is not announced again."""
    adoption.lost.back_up()
    await adoption.ledger.subscribe("team")
    first = adoption.ledger.tokens(None, 1, tool_name="t1")
    await adoption.ledger.record(first)
    await adoption.bill()
    assert await adoption.lose(first) == (0, [])

    await adoption.ledger.subscribe("team")
    await adoption.ledger.record(adoption.ledger.tokens(None, 30, tool_name="t1"))
    await adoption.bill()

    counted = [each for each in await adoption.ledger.reports() if each[0] == "tools"]
    assert counted == [("tools", 1, 1, True)]


async def test_tool_whose_run_does_not_come_back_is_named(adoption: Adoption) -> None:
    """Another run of the window has taken its place, so no event is missing."""
    await adoption.ledger.subscribe("team")
    adoption.lost.back_up()
    first, second = (adoption.ledger.tokens(None, n, tool_name=f"t{n}") for n in (1, 2))
    await adoption.ledger.record(first, second)
    await adoption.bill()
    again = adoption.ledger.tokens(None, 3, tool_name="t1")

    code, faults = await adoption.lose(first, again)

    assert (code, faults) == (1, ["tools charged by a first use that is not back: 1 (cus_one 1)"])
    await adoption.ledger.record(second)
    assert (await adoption.adopt(await adoption.lost.calls()))[1][1:] == faults


async def test_tool_that_its_report_names_is_not_counted_again(adoption: Adoption) -> None:
    """With both dimensions; the run itself is missing, and may come once reporting goes on."""
    adoption.ledger_dimensions = ("server_id", "tool_name")
    await adoption.ledger.subscribe("team")
    adoption.lost.back_up()
    first = [adoption.ledger.tokens(None, number, tool_name=f"t{number}") for number in (1, 2)]
    await adoption.ledger.record(*first)
    await adoption.bill()

    code, faults = await adoption.lose(first[0])
    await adoption.ledger.record(adoption.ledger.tokens(None, 30, tool_name="t2"))
    await adoption.bill()

    assert (code, faults) == (1, ["events missing, to be published again: 1 (cus_one 1)"])
    counted = [each for each in await adoption.ledger.reports() if each[0] == "tools"]
    assert counted == [("tools", 1, 1, True)] * 2


async def test_without_the_file_of_its_routes_nothing_is_adopted(adoption: Adoption) -> None:
    """The runs of its reports would not be found, and be billed again by who has the file."""
    adoption.lost.back_up()
    run = adoption.ledger.tokens("known", 1)
    await adoption.ledger.record(run)
    await adoption.bill()
    calls = await adoption.lost.lose()
    await adoption.ledger.record(run)

    assert await adoption.lost.adopt(calls, "--execute") == (
        1,
        ["PLANS_FILE lacks routes of runs: @tokens; nothing was changed"],
    )
    assert (await adoption.adopt(calls))[0] == 0
