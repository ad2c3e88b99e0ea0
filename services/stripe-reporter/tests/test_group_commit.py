"""Items that are committed in groups."""

import asyncio
from collections.abc import Sequence

import pytest

from stripe_reporter.group_commit import MAX_GROUP, GroupCommit


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


async def test_items_that_arrive_during_a_commit_are_the_next_group() -> None:
    """Each caller gets its own result, and no group is larger than allowed."""
    work = Work()
    groups = GroupCommit(work.double, errors_of_one=(OddNumberError,))
    numbers = [2 * n for n in range(MAX_GROUP + 50)]

    results = await asyncio.gather(*(groups.submit(number) for number in numbers))

    assert results == [2 * number for number in numbers]
    assert [len(group) for group in work.groups] == [MAX_GROUP, 50]


async def test_after_an_error_of_one_item_the_others_succeed() -> None:
    """Each item of the group is then committed alone."""
    groups = GroupCommit(Work().double, errors_of_one=(OddNumberError,))

    results = await asyncio.gather(
        *(groups.submit(number) for number in (2, 3, 4)), return_exceptions=True
    )

    assert results[0] == 4
    assert isinstance(results[1], OddNumberError)
    assert results[2] == 8


async def test_an_error_of_all_is_raised_for_all_at_once() -> None:
    """In an outage a group is not tried item by item."""
    work = Work()
    groups = GroupCommit(work.double, errors_of_one=())

    results = await asyncio.gather(
        *(groups.submit(number) for number in (2, 3, 4)), return_exceptions=True
    )

    assert all(isinstance(result, OddNumberError) for result in results)
    assert len(work.groups) == 1


async def test_a_cancelled_caller_leaves_the_others_their_results() -> None:
    """Its group is committed all the same."""
    groups = GroupCommit(Work().double, errors_of_one=())
    gone = asyncio.create_task(groups.submit(2))
    stays = asyncio.create_task(groups.submit(4))
    await asyncio.sleep(0)

    gone.cancel()

    assert await stays == 8
    with pytest.raises(asyncio.CancelledError):
        await gone
