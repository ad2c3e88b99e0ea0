"""Group commit: items that arrive while one group is being committed form the next group."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MAX_GROUP: Final = 100
"""Items of one group."""


class GroupCommit(Generic[ItemT, ResultT]):
    """Calls ``commit`` with all items that are waiting; a single item is not held back.

    A commit costs the same for one row as for a hundred, and each call to Stripe needs two.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        errors_of_one: tuple[type[Exception], ...],
    ) -> None:
        """Prepare; after one of ``errors_of_one`` each item of the group is committed alone."""
        self._commit = commit
        self._errors_of_one = errors_of_one
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def submit(self, item: ItemT) -> ResultT:
        """Commit ``item`` with others and return its result; raises what its group raised."""
        result: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        try:
            while self._waiting:
                size = min(MAX_GROUP, len(self._waiting))
                await self._commit_group([self._waiting.popleft() for _ in range(size)])
        finally:
            self._running = None

    async def _commit_group(self, group: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        try:
            results = await self._commit([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - raised again in each waiting caller
            if len(group) > 1 and isinstance(error, self._errors_of_one):
                for each in group:
                    await self._commit_group([each])
                return
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)
