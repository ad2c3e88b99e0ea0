"""Work done in groups, and whether it moves."""

import asyncio
from collections.abc import Sequence

import pytest

from stripe_reporter.groups import LARGEST, Groups


class OddNumberError(Exception):
    """An item is at fault."""


class Work:
    """Doubles numbers, refuses odd ones, and remembers its groups."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []

    async def double(self, numbers: Sequence[int]) -> list[int]:
        """Double every number, later."""
        self.groups.append(list(numbers))
        await asyncio.sleep(0)
        if any(number % 2 for number in numbers):
            raise OddNumberError
        return [2 * number for number in numbers]


async def test_what_comes_while_one_group_is_at_work_is_the_next() -> None:
    """Everybody gets their own result, and no group is larger than allowed."""
    work = Work()
    groups = Groups(work.double, somebodys_fault=(OddNumberError,))
    numbers = [2 * n for n in range(LARGEST + 50)]

    results = await asyncio.gather(*(groups.one(number) for number in numbers))

    assert results == [2 * number for number in numbers]
    assert [len(group) for group in work.groups] == [LARGEST, 50]


async def test_one_at_fault_spoils_it_for_nobody_else() -> None:
    """After such an error each of the group is tried alone."""
    groups = Groups(Work().double, somebodys_fault=(OddNumberError,))

    results = await asyncio.gather(
        *(groups.one(number) for number in (2, 3, 4)), return_exceptions=True
    )

    assert results[0] == 4
    assert isinstance(results[1], OddNumberError)
    assert results[2] == 8


async def test_a_fault_of_all_reaches_all_at_once() -> None:
    """An outage is not tried out once for each of a hundred."""
    work = Work()
    groups = Groups(work.double, somebodys_fault=())

    results = await asyncio.gather(
        *(groups.one(number) for number in (2, 3, 4)), return_exceptions=True
    )

    assert all(isinstance(result, OddNumberError) for result in results)
    assert len(work.groups) == 1


async def test_one_who_gave_up_disturbs_nobody() -> None:
    """A cancelled waiter leaves the results of the others where they belong."""
    groups = Groups(Work().double, somebodys_fault=())
    gone = asyncio.create_task(groups.one(2))
    stays = asyncio.create_task(groups.one(4))
    await asyncio.sleep(0)

    gone.cancel()

    assert await stays == 8
    with pytest.raises(asyncio.CancelledError):
        await gone
