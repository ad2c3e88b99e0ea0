"""The thread that delivers: it moves events from memory to the spool and sends them in batches."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from nexus_publisher.answers import BatchAnswer, Trouble
from nexus_publisher.counters import Counters
from nexus_publisher.entries import Entry, Store
from nexus_publisher.lanes import MAX_EVENTS, Lane
from nexus_publisher.log import log
from nexus_publisher.memory import Memory
from nexus_publisher.spool import Spool
from nexus_publisher.spool_file import SpoolUnavailableError
from nexus_publisher.threadless_loop import ThreadlessLoop
from nexus_publisher.transport import Sender, Transport

MAX_BATCH_BYTES: Final = 1024 * 1024
"""Bytes of events in one request; the API takes eight times as many."""

GATHER_SECONDS: Final = 0.1
"""How long events gather for a batch after the first of them."""

POLL_SECONDS: Final = 1.0
"""How often to look for events of other processes, and to sync the spool to the disk."""

STOP_SECONDS: Final = 0.5
"""How long to wait for the thread's end, beyond the deadline of the drain."""

THREAD_NAME: Final = "nexus-publisher"

DEFECT_SECONDS: Final = 5.0
"""How long to wait after an error that nobody foresaw, which must not end deliveries."""

VENDOR_LOGGERS: Final = (
    "aio_pika",
    "aiohttp.client",
    "aiormq.channel",
    "aiormq.connection",
    "asyncio",
)

Refuse = Callable[[Entry, str], None]
"""Reports an event that will never be accepted, with the rule that it breaks."""


class Delivery:
    """Delivers in one daemon thread, which has an event loop of its own."""

    def __init__(
        self,
        transport: Transport,
        memory: Memory,
        spool: Spool | None,
        counters: Counters,
        refuse: Refuse,
    ) -> None:
        self._transport = transport
        self._memory = memory
        self._spool = spool
        self._counters = counters
        self._refuse = refuse
        self._lanes: dict[str, Lane] = {}
        self._spool_cause: str | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._signal = asyncio.Event()
        self._signalled = False
        self._draining = False
        self._hurry = False
        self._stopping = False
        self._drained = threading.Event()

    def wake(self) -> None:
        """Say that there are events; start the thread if it does not run."""
        if self._thread is None:
            self._start()
        if not self._signalled:
            self._signalled = True
            self._call(self._signal.set)

    def drain(self, seconds: float) -> None:
        """Wait until no event is in memory and each type was tried, for ``seconds`` at most."""
        if self._thread is None or not self._thread.is_alive():
            return  # nothing was recorded in this process, or it is closed
        self._drained.clear()
        self._draining = self._hurry = True
        self.wake()
        self._drained.wait(seconds)
        self._draining = False

    def stop(self) -> None:
        """End the thread, in the middle of a batch if need be."""
        self._stopping = True
        if self._thread is not None and self._thread is not threading.current_thread():
            self._call(self._cancel)
            self._thread.join(STOP_SECONDS)

    def _start(self) -> None:
        # Without waiting: a signal handler may interrupt the thread that holds it.
        if self._starting.acquire(blocking=False):
            try:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
                    thread.start()
                    self._thread = thread
            except RuntimeError:  # the interpreter ends, or the system has no thread left
                log(logging.WARNING, "the thread that delivers can't be started")
            finally:
                self._starting.release()

    def _call(self, callback: Callable[[], object]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(callback)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        for name in VENDOR_LOGGERS:
            logging.getLogger(name).addFilter(_of_other_threads)
        while not self._stopping:
            try:
                with asyncio.Runner(loop_factory=ThreadlessLoop) as runner:
                    self._signal = asyncio.Event()  # it belongs to one loop
                    self._loop = runner.get_loop()
                    self._signalled = False
                    self._loop.set_exception_handler(_ignore)
                    runner.run(self._deliver_until_stopped())
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - see the constant
                if not self._stopping:
                    log(logging.ERROR, "the delivery failed: %s", _place_of(error))
                    time.sleep(DEFECT_SECONDS)

    async def _deliver_until_stopped(self) -> None:
        self._task = asyncio.current_task()
        async with self._transport.open() as sender, asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._keep_on_disk())
            while not self._stopping:
                if draining := self._draining:
                    self._try_all_once()
                if not await self._round(sender):
                    if draining and not self._memory.waiting().events:
                        self._drained.set()
                    await self._rest()
            keeping.cancel()

    async def _keep_on_disk(self) -> None:
        """Move events to the spool and sync it, also while a batch waits for its answer."""
        while not self._stopping:
            self._spill()
            if spool := self._led_spool():
                spool.checkpoint()
            await asyncio.sleep(POLL_SECONDS)

    def _try_all_once(self) -> None:
        if self._hurry:
            self._hurry = False
            for lane in self._lanes.values():
                lane.hurry()

    async def _rest(self) -> None:
        """Wait until there are events, and a little longer for others; at most until the poll."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds_to_rest()):
                await self._signal.wait()
            if not (self._draining or self._stopping):
                await asyncio.sleep(GATHER_SECONDS)
        self._signal.clear()
        self._signalled = False

    def _seconds_to_rest(self) -> float:
        now = time.monotonic()
        pauses = [lane.due_at - now for lane in self._lanes.values() if lane.due_at > now]
        return min([POLL_SECONDS, *pauses])

    async def _round(self, sender: Sender) -> bool:
        """Send one batch of each type that is due; return whether any was answered."""
        progress = self._spill()
        for store in self._stores():
            for event_type in self._types(store):
                lane = self._lanes.setdefault(event_type, Lane())
                if lane.due_at <= time.monotonic():
                    progress |= await self._send_one(sender, store, event_type, lane)
        return progress

    def _stores(self) -> Iterator[Store]:
        """Yield where events wait. The memory has any only if the spool can't take them."""
        yield self._memory
        if spool := self._led_spool():
            yield spool

    def _led_spool(self) -> Spool | None:
        """Return the spool if this process delivers for all; after `stop` it must not any more."""
        if self._spool is None or self._stopping or not self._spool.lead():
            return None
        return self._spool

    def _types(self, store: Store) -> Sequence[str]:
        try:
            return store.types()
        except SpoolUnavailableError as error:
            self._note_spool(str(error))
            return ()

    async def _send_one(self, sender: Sender, store: Store, event_type: str, lane: Lane) -> bool:
        try:
            batch = store.read(event_type, lane.limit, MAX_BATCH_BYTES)
            if not batch:
                return False
            answer = await sender.send(batch)
            return self._settle(store, batch, answer, lane)
        except SpoolUnavailableError as error:
            self._note_spool(str(error))
            return False

    def _settle(
        self, store: Store, batch: Sequence[Entry], answer: BatchAnswer, lane: Lane
    ) -> bool:
        """Remove what is confirmed or refused; return whether the rest may follow at once."""
        refused = dict(answer.refused)
        failure = answer.failure
        if failure is not None and failure.trouble is Trouble.TOO_LARGE:
            failure = None
            lane.halve(len(batch))
            if len(batch) == 1 and answer.failure is not None:
                refused[0] = answer.failure.cause
        elif failure is None:
            if lane.failure is not None:
                log(logging.INFO, "%s is delivered again", batch[0].type)
            lane.succeeded()
        confirmed = [batch[index] for index in sorted(answer.confirmed)]
        self._counters.count_confirmed(len(confirmed))
        for index, rule in refused.items():
            self._refuse(batch[index], rule)
        if failure is not None:
            if lane.failure is None or lane.failure.trouble is not failure.trouble:
                log(logging.WARNING, "%s is not delivered: %s", batch[0].type, failure.cause)
            lane.failed(failure, now=time.monotonic(), chance=random.random())  # noqa: S311
        store.remove([*confirmed, *(batch[index] for index in refused)])
        return failure is None

    def _spill(self) -> bool:
        """Move events from memory to the spool; return whether any was moved."""
        if self._spool is None:
            return False
        batch = self._memory.read(None, MAX_EVENTS, MAX_BATCH_BYTES)
        try:
            if not batch:
                return False
            self._spool.add_all(batch)
        except SpoolUnavailableError as error:
            self._note_spool(str(error))
            return False
        self._note_spool(None)
        self._memory.remove(batch)
        return True

    def _note_spool(self, cause: str | None) -> None:
        if cause is not None and self._spool_cause is None:
            log(logging.WARNING, "the spool can't be used, events wait in memory: %s", cause)
        elif cause is None and self._spool_cause is not None:
            log(logging.INFO, "the spool is used again")
        self._spool_cause = cause


def _of_other_threads(record: logging.LogRecord) -> bool:
    """Filter out what vendors log about each lost connection of this thread; we log it once."""
    return record.threadName != THREAD_NAME


def _ignore(_loop: asyncio.AbstractEventLoop, _context: dict[str, object]) -> None:
    """Drop what asyncio would log about tasks of a lost connection; its cause is logged once."""


def _place_of(error: BaseException) -> str:
    """Return an error's class, file and line; its text may hold values of an event."""
    while isinstance(error, BaseExceptionGroup):  # of the task group
        error = error.exceptions[0]
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return type(error).__name__
    return f"{type(error).__name__} in {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
