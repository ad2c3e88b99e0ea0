"""Runs without a price, and the readings that they get later, beside the event.

A run is priced later once, by the primary key of `late_readings`, whoever prices it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from nexus_plans import Plans, Priced, Tokens
from usage_ingest.columns import Column, arrays, names, rows, selected
from usage_ingest.entry import Entry
from usage_ingest.metering import MAX_AGE, BillingState
from usage_ingest.prices import PRICES, price_id, price_row

MAX_PRICED: Final = 1000
"""Runs that are priced, or given up, in one transaction."""

MAX_MODELS: Final = 1000
"""Models without a price that are looked up at once; publishers choose their names."""

INSERT_PRICES: Final = text(f"""
INSERT INTO model_prices ({names(PRICES)})
SELECT {selected(PRICES)} FROM {rows(PRICES)} ORDER BY n.price_id
ON CONFLICT (price_id) DO NOTHING
""")  # noqa: S608 - made of names in this program

_UNPRICED: Final = (
    Column("event_id", "uuid", "event.id"),
    Column("key", "text", "cost.key"),
    Column("model", "text", "event.data.model"),
    Column("occurred_at", "timestamptz", "event.time"),
)

INSERT_UNPRICED: Final = text(f"""
INSERT INTO unpriced_runs ({names(_UNPRICED)})
SELECT {selected(_UNPRICED)} FROM {rows(_UNPRICED)} JOIN usage_events e USING (event_id)
 WHERE e.billing_state <> 'not_billable' AND NOT e.readings ? n.key
 ORDER BY n.event_id
ON CONFLICT (event_id) DO NOTHING
""")  # noqa: S608 - likewise


class LateReading(NamedTuple):
    """The cost of a run that is in the ledger without it."""

    event_id: UUID
    key: str
    occurred_at: datetime
    priced: Priced

    @property
    def value(self) -> int:
        """The cost in micro-USD."""
        return self.priced.micro_usd

    @property
    def price_id(self) -> UUID | None:
        """The price that it was read by."""
        return price_id(self.priced)


_LATE: Final = (
    Column("event_id", "uuid", "event_id"),
    Column("key", "text", "key"),
    Column("value", "bigint", "value"),
    Column("price_id", "uuid", "price_id"),
    Column("occurred_at", "timestamptz", "occurred_at"),
)

# Never beside a reading of the event itself with the same key.
INSERT_LATE: Final = text(f"""
INSERT INTO late_readings ({names(_LATE)})
SELECT {selected(_LATE)} FROM {rows(_LATE)} JOIN usage_events e USING (event_id)
 WHERE e.billing_state <> 'not_billable' AND NOT e.readings ? n.key
 ORDER BY n.event_id
ON CONFLICT (event_id, key) DO NOTHING
RETURNING event_id
""")  # noqa: S608 - likewise

# Jumps from name to name in the index: it reads no more, however many runs a model has.
MODELS: Final = text("""
WITH RECURSIVE m(model) AS (
    (SELECT model FROM unpriced_runs WHERE state = 'unpriced' ORDER BY model LIMIT 1)
     UNION ALL
    SELECT (SELECT model FROM unpriced_runs WHERE state = 'unpriced' AND model > m.model
             ORDER BY model LIMIT 1)
      FROM m WHERE m.model IS NOT NULL
)
SELECT model FROM m WHERE model IS NOT NULL LIMIT :most
""")

TAKE: Final = text("""
SELECT u.event_id, u.key, u.model, u.occurred_at, d.input_tokens, d.output_tokens, d.cached_tokens
  FROM unnest(CAST(:models AS text[]), CAST(:begins AS timestamptz[])) AS p(model, begins)
 CROSS JOIN LATERAL (
       SELECT event_id, key, model, occurred_at FROM unpriced_runs
        WHERE state = 'unpriced' AND model = p.model AND occurred_at >= p.begins
        ORDER BY occurred_at LIMIT :most FOR UPDATE SKIP LOCKED) u
  JOIN usage_details d USING (event_id)
 LIMIT :most
""")

SETTLE: Final = text("""
UPDATE unpriced_runs SET state = :state
 WHERE event_id = ANY(CAST(:ids AS uuid[])) AND state = 'unpriced'
""")

GIVE_UP: Final = text("""
UPDATE unpriced_runs SET state = 'given_up'
 WHERE event_id IN (SELECT event_id FROM unpriced_runs
                     WHERE state = 'unpriced' AND occurred_at <= :oldest
                     LIMIT :most FOR UPDATE SKIP LOCKED)
""")

EXPIRE: Final = text("""
UPDATE late_readings SET billing_state = 'expired'
 WHERE (event_id, key) IN (SELECT event_id, key FROM late_readings
                            WHERE billing_state = 'due' AND occurred_at <= :oldest
                            LIMIT :most FOR UPDATE SKIP LOCKED)
""")


@dataclass(frozen=True, slots=True)
class LatePricing:
    """Runs that were priced later, and those that no longer can be; ``more`` may be left."""

    priced: int
    given_up: int
    more: bool


async def keep_costs(
    connection: AsyncConnection, new: Sequence[Entry], late: Sequence[Entry]
) -> None:
    """Keep what is known of the costs of runs, in the transaction that records them.

    Args:
        connection: Of the transaction.
        new: Runs that it has inserted, with their costs among their readings.
        late: Runs that were in the ledger, and whose model and tokens it has inserted.
    """
    priced: list[Priced] = []
    unpriced: list[Entry] = []
    for entry in (*new, *late):
        if entry.cost is None or entry.state is BillingState.EXPIRED:
            continue
        if isinstance(entry.cost.priced, Priced):
            priced.append(entry.cost.priced)
        elif entry.cost.priced.reason == "no_price":
            unpriced.append(entry)
    readings = [
        LateReading(entry.event.id, entry.cost.key, entry.event.time, entry.cost.priced)
        for entry in late
        if entry.state is not BillingState.EXPIRED
        and entry.cost is not None
        and isinstance(entry.cost.priced, Priced)
    ]
    await _insert_prices(connection, priced)
    if unpriced:
        await connection.execute(INSERT_UNPRICED, arrays(_UNPRICED, unpriced))
    await _insert_late(connection, readings)


class LateReadings:
    """Prices runs once the table has their model, and gives up what is too old to be reported."""

    def __init__(self, database: Database, plans: Plans) -> None:
        self._database = database
        self._plans = plans

    async def price(self, now: datetime, *, most: int = MAX_PRICED) -> LatePricing:
        """Price up to ``most`` runs by the table as it is, and give up up to ``most``.

        Raises:
            DatabaseUnavailableError: nothing was priced.
        """

        async def work(connection: AsyncConnection) -> LatePricing:
            oldest = {"oldest": now - MAX_AGE, "most": most}
            expired = (await connection.execute(EXPIRE, oldest)).rowcount
            given_up = (await connection.execute(GIVE_UP, oldest)).rowcount
            models = (await connection.execute(MODELS, {"most": MAX_MODELS})).scalars()
            begins = {model: self._plans.priced_from(model) for model in models}
            known = {model: begin for model, begin in begins.items() if begin is not None}
            if not known:
                return LatePricing(0, expired + given_up, more=most in (expired, given_up))

            values = {"models": list(known), "begins": list(known.values()), "most": most}
            taken = (await connection.execute(TAKE, values)).all()
            readings: list[LateReading] = []
            impossible: list[UUID] = []
            for row in taken:
                tokens = Tokens(row.input_tokens, row.output_tokens, row.cached_tokens)
                found = self._plans.price_of(row.model, tokens, row.occurred_at)
                if isinstance(found, Priced):
                    readings.append(LateReading(row.event_id, row.key, row.occurred_at, found))
                else:
                    impossible.append(row.event_id)
            await _insert_prices(connection, [each.priced for each in readings])
            await _insert_late(connection, readings)
            priced = [each.event_id for each in readings]
            await connection.execute(SETTLE, {"state": "priced", "ids": priced})
            await connection.execute(SETTLE, {"state": "given_up", "ids": impossible})
            lost = expired + given_up + len(impossible)
            return LatePricing(len(priced), lost, more=most in (len(taken), expired, given_up))

        return await self._database.run(work)


async def _insert_prices(connection: AsyncConnection, priced: Iterable[Priced]) -> None:
    """Insert the prices that some runs have, unless they are there; few runs differ in theirs."""
    different = {id(each.price): each for each in priced}
    if different:
        prices = [price_row(each) for each in different.values()]
        await connection.execute(INSERT_PRICES, arrays(PRICES, prices))


async def _insert_late(connection: AsyncConnection, readings: Sequence[LateReading]) -> None:
    """Insert what costs anything; the prices must be there."""
    if charged := [each for each in readings if each.value]:
        await connection.execute(INSERT_LATE, arrays(_LATE, charged))
