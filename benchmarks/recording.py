"""What a tool run costs from the queue to the ledger, compared with other ways of recording it.

The ways take turns, round by round. Each records a backlog by itself and is measured from its first
tenth to its ninth, so without start and connecting: events per second, and the processor time for
an event of the consumer, the broker and PostgreSQL. The servers wait for their disk, as in
production. A turn that does not end in its time is measured by what it did until then, and the
whole ends after its minutes, with the rounds that were possible.
"""

import argparse
import asyncio
import secrets
import time
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from harness import (
    Cost,
    Moment,
    Program,
    Servers,
    circumstances,
    durable_servers,
    load_average,
    pile_up_runs,
    run,
    running,
    say,
)
from local_stack.ports import LOOPBACK, free_ports
from report import Report, Turn, write
from support.databases import make_database
from support.vhost import Vhost
from ways import HERE, WAYS, Way, versions

SERVICE: Final = "usage_ingest"
RESULTS: Final = Path(__file__).with_name("results")
OUR_PACKAGES: Final = ("aio-pika", "aiormq", "asyncpg", "faststream", "sqlalchemy")
"""Packages whose versions are printed beside the servers' and the peers'."""

START_SECONDS: Final = 45.0
"""How long a way may take to start and to record the first tenth."""
MEASURED_SECONDS: Final = 15.0
"""How long a way is measured at most."""
TURN_SECONDS: Final = 90.0
"""How long a turn may take, with the queueing of its backlog."""
POLL_SECONDS: Final = (0.02, 0.5)
"""The shortest and the longest pause between two counts, which cost PostgreSQL time."""

TABLES: Final = f"""
CREATE TABLE bodies (body bytea); CREATE TABLE acked (number integer);
GRANT INSERT ON bodies, acked TO {SERVICE}
"""
RECORDED: Final = """
SELECT (SELECT count(*) FROM usage_events) + (SELECT count(*) FROM bodies)
       + (SELECT coalesce(sum(number), 0) FROM acked)
"""
EMPTY: Final = "TRUNCATE usage_events, bodies, acked CASCADE"


Parts = Mapping[str, Sequence[int]]
"""The process ids of each part."""


class NoFigureError(Exception):
    """A turn that could not be measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A broker and a ledger; the ways are measured one after the other."""

    servers: Servers
    vhost: Vhost
    database_url: str
    superuser: asyncpg.Connection

    async def turn(self, way: Way, events: int, deadline: float) -> Turn:
        """Measure one way on a backlog of ``events``; return its cost, or why there is none."""
        self.log.write_bytes(b"")
        ends = min(deadline, asyncio.get_running_loop().time() + TURN_SECONDS)
        try:
            async with asyncio.timeout_at(ends):
                return await self._cost(way, events)
        except TimeoutError:
            missing = "its time was over before it could be measured"
        except NoFigureError as error:
            missing = str(error)
        if printed := self.log.read_text(errors="replace").splitlines():
            say("\n".join(printed[-20:]))
        return missing

    @property
    def log(self) -> Path:
        """The file of what the programs of this turn print."""
        return self.servers.directory / "way.log"

    async def _cost(self, way: Way, events: int) -> Cost:
        # The last consumer may have ended between a commit and its ack, or before its end.
        await self.superuser.execute(EMPTY)
        await self.vhost.empty()
        await self._queue(way, events)
        # Or the one whose turn it is pays for what the last one wrote.
        await self.superuser.execute("CHECKPOINT")
        programs = [Program(way.command, self._settings(way)) for _ in range(way.processes)]
        async with running(*programs, log=self.log) as processes:
            parts = {"python": [each.pid for each in processes], **self.servers.parts}
            early = await self._reach(events // 10, parts, processes, START_SECONDS)
            if not early.number:
                raise NoFigureError(f"recorded nothing in {START_SECONDS:.0f} s")
            late = await self._reach(events * 9 // 10, parts, processes, MEASURED_SECONDS)
        if late.number == early.number:
            stuck = late.number < events
            raise NoFigureError("recorded nothing more" if stuck else "too few events to measure")
        return Cost.between(early, late)

    async def _queue(self, way: Way, events: int) -> None:
        """Queue a backlog for a way: tool runs of ours, or its own library's messages."""
        if way.producer is None:
            await pile_up_runs(self.vhost, events)
            return
        # It declares the queue anew, as its library wants it.
        async with self.vhost.channel() as channel:
            await channel.queue_delete(way.queue)
        producer = Program([*way.producer, str(events)], self._settings(way))
        async with running(producer, log=self.log) as [process]:
            if code := await process.wait():
                raise NoFigureError(f"its producer ended with code {code}")

    async def _reach(
        self, wanted: int, parts: Parts, processes: Sequence[Process], seconds: float
    ) -> Moment:
        """Wait until ``wanted`` events are recorded or the time is over, with few counts."""
        began = asyncio.get_running_loop().time()
        last_count, last_time, pause = 0, began, POLL_SECONDS[0]
        while True:
            recorded = await self.superuser.fetchval(RECORDED)
            now = asyncio.get_running_loop().time()
            if recorded >= wanted or now > began + seconds:
                return Moment.now(recorded, parts)
            if any(each.returncode is not None for each in processes):
                raise NoFigureError("its process ended")
            if recorded > last_count:
                rate = (recorded - last_count) / (now - last_time)
                pause = (wanted - recorded) / rate / 2
            last_count, last_time = recorded, now
            await asyncio.sleep(min(max(pause, POLL_SECONDS[0]), POLL_SECONDS[1]))

    def _settings(self, way: Way) -> Mapping[str, str]:
        [port] = free_ports(None)
        own = self.vhost.url("usage-ingest") if way.producer is None else self.vhost.admin_url
        return {
            "AMQP_URL": own,
            "DATABASE_URL": self.database_url,
            "HTTP_HOST": LOOPBACK,
            "HTTP_PORT": str(port),
            "LOG_LEVEL": "WARNING",
            **({} if way.producer is None else {"PYTHONPATH": str(HERE)}),
        }


async def compare(
    bench: Bench, names: Sequence[str], rounds: int, share: float, deadline: float
) -> dict[str, list[Turn]]:
    """Measure the ways in turns, back and forth, until ``deadline`` of the loop's clock."""
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for number in range(1, rounds + 1):
        for name in names if number % 2 else reversed(names):
            way = WAYS[name]
            if not way.installed:
                turn: Turn = "its packages are not installed"
            elif asyncio.get_running_loop().time() > deadline:
                turn = "the benchmark's time was over"
            else:
                turn = await bench.turn(way, int(way.events * share), deadline)
            turns[name].append(turn)
            figure = turn if isinstance(turn, str) else f"{turn.rate:,.0f}/s"
            say(f"round {number} of {rounds}, {name}: {figure}")
    return turns


async def main(names: Sequence[str], rounds: int, share: float, minutes: float, to: Path) -> None:
    """Start the servers, measure, write the results and print their table."""
    deadline = asyncio.get_running_loop().time() + minutes * 60
    began, load, password = time.monotonic(), load_average(), secrets.token_hex(16)
    with durable_servers() as servers:
        about = {"load_average_before": load, **circumstances(servers, *OUR_PACKAGES)}
        about["versions"] |= versions()
        url = await make_database(servers.postgres, SERVICE, password)
        superuser = await asyncpg.connect(servers.postgres.superuser_url, database=SERVICE)
        await superuser.execute(TABLES)
        vhost = Vhost(servers.broker, "metering", password)
        await vhost.create(tier_scale=1.0)
        turns = await compare(Bench(servers, vhost, url, superuser), names, rounds, share, deadline)
        await superuser.close()
    about |= {"load_average_after": load_average(), "rounds": rounds}
    about["seconds"] = round(time.monotonic() - began)
    report = Report(about, turns)
    write(report, to)
    print(report.markdown)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="WAY", help=", ".join(WAYS))
    options.add_argument("--rounds", type=int, default=3, help="turns of each way (3)")
    options.add_argument("--share", type=float, default=1.0, help="of each way's events (1.0)")
    options.add_argument("--minutes", type=float, default=13.0, help="the whole's limit (13)")
    options.add_argument("--to", type=Path, default=RESULTS, help="the folder of the results")
    given = options.parse_args()
    run(main(given.names or list(WAYS), given.rounds, given.share, given.minutes, given.to))
