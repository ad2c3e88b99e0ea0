"""Claims: due events become reports, in one statement, and no event is in two claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from nexus_messaging.tracing import MAX_LINKS
from usage_ingest.charging import NO_PLAN, ROUTE, Charges, parameter
from usage_ingest.columns import NEW_ID
from usage_ingest.storage.accounts import assigned_at
from usage_ingest.windows import closed_before

MOST_EVENTS: Final = 50_000
"""Of one claim, which takes a second or less. Each full claim reports one window in two parts."""

# A claim is of one account with one plan, of one window and dimensions; without windows, of one
# event. Rows are found again by their place in the table: it is theirs while they are locked. Each
# claim carries the places of its rows: a join back to them would be quadratic wherever the table's
# statistics are from a time when nothing was due, and two arrays keep the planner from reading the
# whole table if much was. What was not marked would not be reported either. What has no customer is
# no claim: its rows wait again, since their user was assigned to an account without one. Plans are
# looked up only if there are any charges by plan. Half a unit is rounded up.
CLAIM: Final = text(f"""
WITH taken AS MATERIALIZED (
    SELECT e.ctid AS place, coalesce(assigned.account_id, e.user_id) AS account_id, e.occurred_at,
           e.traceparent, a.stripe_customer_id, a.generation,
           coalesce(planned.plan_type, '{NO_PLAN}') AS plan,
           CASE WHEN :window > 0 THEN coalesce(assigned.account_id, e.user_id)
                ELSE e.event_id END AS whose,
           date_bin(make_interval(secs => greatest(:window, 1)), e.occurred_at, 'epoch') AS bucket,
           CASE WHEN cardinality(CAST(:dimensions AS text[])) = 0 THEN jsonb '{{}}'
                ELSE (SELECT jsonb_object_agg(d.name, to_jsonb(e) ->> d.name)
                        FROM unnest(CAST(:dimensions AS text[])) AS d(name)) END AS dimensions
      FROM usage_events e
      {assigned_at("e")}
      LEFT JOIN billing_accounts a ON a.user_id = coalesce(assigned.account_id, e.user_id)
      LEFT JOIN LATERAL (
           SELECT plan_type FROM account_plans p
            WHERE p.account_id = a.user_id AND p.since <= e.occurred_at
            ORDER BY p.since DESC LIMIT 1) planned ON CAST(:charges AS jsonb) IS NOT NULL
     WHERE e.billing_state = 'due' AND e.occurred_at < :closed_before
     ORDER BY e.occurred_at
     LIMIT :most
       FOR UPDATE OF e SKIP LOCKED
), claims AS MATERIALIZED (
    SELECT CASE WHEN stripe_customer_id IS NOT NULL THEN {NEW_ID} END AS claim_id, account_id,
           stripe_customer_id, generation, plan, whose, bucket, dimensions,
           min(occurred_at) AS occurred_at, array_agg(place) AS places
      FROM taken
     GROUP BY account_id, stripe_customer_id, generation, plan, whose, bucket, dimensions
), marked AS (
    UPDATE usage_events e
       SET billing_state = CASE WHEN p.claim_id IS NULL THEN 'waiting' ELSE 'claimed' END,
           claim_id = p.claim_id
      FROM (SELECT array_agg(claim_id) AS ids, array_agg(place) AS places
              FROM (SELECT claim_id, unnest(places) AS place FROM claims) c) a
     CROSS JOIN unnest(a.ids, a.places) AS p(claim_id, place)
     WHERE e.ctid = p.place
    RETURNING p.claim_id, e.readings
), summed AS (
    SELECT m.claim_id, r.key, sum(r.value::bigint) AS value, count(*) AS event_count
      FROM marked m
     CROSS JOIN LATERAL jsonb_each_text(m.readings) r
     WHERE m.claim_id IS NOT NULL
     GROUP BY m.claim_id, r.key
), charged AS (
    SELECT s.claim_id, s.event_count, charge ->> 'meter' AS meter,
           floor(s.value * (charge ->> 'percent')::integer * 0.01 + 0.5) AS value
      FROM summed s
      JOIN claims c USING (claim_id)
     CROSS JOIN (SELECT CAST(:charges AS jsonb) AS charges) f
     CROSS JOIN LATERAL (
           SELECT CASE WHEN starts_with(s.key, '{ROUTE}')
                       THEN coalesce(f.charges -> c.plan, f.charges -> '{NO_PLAN}') -> s.key
                       ELSE jsonb_build_object('meter', s.key, 'percent', 100) END AS charge) p
), metered AS (
    SELECT {NEW_ID} AS report_id, claim_id, meter, sum(value) AS value,
           sum(event_count) AS event_count
      FROM charged
     WHERE meter IS NOT NULL
     GROUP BY claim_id, meter
), reported AS (
    INSERT INTO usage_reports (
        report_id, identifier, claim_id, user_id, stripe_customer_id, generation, meter, value,
        dimensions, occurred_at, event_count, traceparent)
    SELECT m.report_id, 'nexus:' || m.report_id, claim_id, c.account_id, c.stripe_customer_id,
           c.generation, m.meter, m.value, c.dimensions, c.occurred_at, m.event_count,
           CAST(:traceparent AS text)
      FROM metered m
      JOIN claims c USING (claim_id)
    RETURNING report_id
)
SELECT (SELECT count(*) FROM marked WHERE claim_id IS NOT NULL) AS events,
       (SELECT count(*) FROM marked WHERE claim_id IS NULL) AS put_back,
       (SELECT count(*) FROM reported) AS reports,
       (SELECT coalesce(sum(event_count), 0)::bigint FROM charged WHERE meter IS NULL)
           AS without_meter,
       ARRAY(SELECT DISTINCT traceparent FROM taken WHERE traceparent IS NOT NULL
              LIMIT :links) AS contexts
""")  # noqa: S608 - of this project's constants


@dataclass(frozen=True, slots=True)
class Claimed:
    """How many events were claimed, and how many reports they became.

    ``put_back`` is how many wait again, since their account has no customer. ``without_meter`` is
    how many readings are charged on no meter by their account's plan. ``contexts`` are trace
    contexts of the events, at most as many as a span may have links.
    """

    events: int
    reports: int
    put_back: int = 0
    without_meter: int = 0
    contexts: tuple[str, ...] = ()

    @property
    def taken(self) -> int:
        """How many due events it took, of ``most``."""
        return self.events + self.put_back


class Claims:
    """Claims due events by windows of ``window`` and by ``dimensions``, charged by ``charges``."""

    def __init__(
        self,
        database: Database,
        *,
        window: timedelta,
        dimensions: Sequence[str],
        charges: Charges = MappingProxyType({}),
    ) -> None:
        self._database = database
        self._window = window
        self._dimensions = list(dimensions)
        self._charges = parameter(charges)

    async def claim(
        self, now: datetime, *, most: int = MOST_EVENTS, traceparent: str | None = None
    ) -> Claimed:
        """Claim up to ``most`` due events whose window has closed at ``now``.

        Any number of processes may claim at once: each takes rows that no other has locked.
        ``traceparent``, the claim's own trace context, is stored with the reports; without one no
        contexts of the events are read.

        Raises:
            DatabaseUnavailableError: nothing was claimed.
        """

        async def work(connection: AsyncConnection) -> Claimed:
            result = await connection.execute(
                CLAIM,
                {
                    "window": int(self._window.total_seconds()),
                    "dimensions": self._dimensions,
                    "charges": self._charges,
                    "closed_before": closed_before(now, self._window),
                    "most": most,
                    "traceparent": traceparent,
                    "links": 0 if traceparent is None else MAX_LINKS,
                },
            )
            row = result.one()
            return Claimed(
                row.events, row.reports, row.put_back, row.without_meter, tuple(row.contexts)
            )

        return await self._database.run(work)
