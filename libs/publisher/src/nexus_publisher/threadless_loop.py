"""An event loop that needs no other thread than its own."""

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

from typing_extensions import override

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ThreadlessLoop(asyncio.SelectorEventLoop):
    """Does at once what asyncio would give to a pool of threads, such as looking up a host name.

    At the interpreter's exit no pool takes work any more, and no thread can be started; but the
    last events must still be sent then. A look-up holds up nothing here but deliveries.
    """

    @override
    def run_in_executor(
        self, executor: object, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - raised in the caller
            future.set_exception(error)
        return future
