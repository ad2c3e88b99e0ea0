"""Single pieces of work done together: what comes while one group is at work is the next group."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

LARGEST: Final = 100


class Groups(Generic[ItemT, ResultT]):
    """Hands ``work`` as many items as have come; alone, an item is handed over at once.

    A commit costs the same for one row as for a hundred, and two of them frame each call.
    """

    def __init__(
        self,
        work: Callable[[Sequence[ItemT]], Awaitable[Sequence[ResultT]]],
        *,
        somebodys_fault: tuple[type[Exception], ...],
    ) -> None:
        """Prepare; after an error of ``somebodys_fault`` each item of the group is tried alone."""
        self._work = work
        self._somebodys_fault = somebodys_fault
        self._waiting: deque[tuple[ItemT, asyncio.Future[ResultT]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def one(self, item: ItemT) -> ResultT:
        """Have ``item`` done with others and return its result; raises what its group raised."""
        result: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        try:
            while self._waiting:
                size = min(LARGEST, len(self._waiting))
                await self._do([self._waiting.popleft() for _ in range(size)])
        finally:
            self._running = None

    async def _do(self, group: list[tuple[ItemT, asyncio.Future[ResultT]]]) -> None:
        try:
            results = await self._work([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - it is for those who wait to judge it
            if len(group) > 1 and isinstance(error, self._somebodys_fault):
                for each in group:
                    await self._do([each])
                return
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)
