"""Claims: due events become reports, in one statement, and no event is in two claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from nexus_messaging.tracing import MAX_LINKS
from usage_ingest.columns import NEW_ID
from usage_ingest.windows import closed_before

MOST_EVENTS: Final = 50_000
"""Of one claim, which takes a second or less. Each full claim reports one window in two parts."""

# A claim is of one user, window and dimensions; without windows, of one event. Rows are found again
# by their place in the table: it is theirs while they are locked. Each claim carries the places of
# its rows: a join back to them would be quadratic wherever the table's statistics are from a time
# when nothing was due. What was not marked would not be reported either.
CLAIM: Final = text(f"""
WITH taken AS MATERIALIZED (
    SELECT e.ctid AS place, e.user_id, e.occurred_at, e.traceparent,
           a.stripe_customer_id, a.generation,
           CASE WHEN :window > 0 THEN e.user_id ELSE e.event_id END AS whose,
           date_bin(make_interval(secs => greatest(:window, 1)), e.occurred_at, 'epoch') AS bucket,
           CASE WHEN cardinality(CAST(:dimensions AS text[])) = 0 THEN jsonb '{{}}'
                ELSE (SELECT jsonb_object_agg(d.name, to_jsonb(e) ->> d.name)
                        FROM unnest(CAST(:dimensions AS text[])) AS d(name)) END AS dimensions
      FROM usage_events e
      JOIN billing_accounts a USING (user_id)
     WHERE e.billing_state = 'due' AND e.occurred_at < :closed_before
     ORDER BY e.occurred_at
     LIMIT :most
       FOR UPDATE OF e SKIP LOCKED
), claims AS MATERIALIZED (
    SELECT {NEW_ID} AS claim_id, user_id, stripe_customer_id, generation, whose, bucket,
           dimensions, min(occurred_at) AS occurred_at, array_agg(place) AS places
      FROM taken
     GROUP BY user_id, stripe_customer_id, generation, whose, bucket, dimensions
), marked AS (
    UPDATE usage_events e
       SET billing_state = 'claimed', claim_id = p.claim_id
      FROM (SELECT claim_id, unnest(places) AS place FROM claims) p
     WHERE e.ctid = p.place
    RETURNING p.claim_id, e.readings
), summed AS (
    SELECT {NEW_ID} AS report_id, m.claim_id, r.key AS meter,
           sum(r.value::bigint) AS value, count(*) AS event_count
      FROM marked m
     CROSS JOIN LATERAL jsonb_each_text(m.readings) r
     GROUP BY m.claim_id, r.key
), reported AS (
    INSERT INTO usage_reports (
        report_id, identifier, claim_id, user_id, stripe_customer_id, generation, meter, value,
        dimensions, occurred_at, event_count, traceparent)
    SELECT s.report_id, 'nexus:' || s.report_id, claim_id, c.user_id, c.stripe_customer_id,
           c.generation, s.meter, s.value, c.dimensions, c.occurred_at, s.event_count,
           CAST(:traceparent AS text)
      FROM summed s
      JOIN claims c USING (claim_id)
    RETURNING report_id
)
SELECT (SELECT count(*) FROM marked) AS events, (SELECT count(*) FROM reported) AS reports,
       ARRAY(SELECT DISTINCT traceparent FROM taken WHERE traceparent IS NOT NULL
              LIMIT :links) AS contexts
""")  # noqa: S608 - of this project's constants


@dataclass(frozen=True, slots=True)
class Claimed:
    """How many events were claimed, and how many reports they became.

    ``contexts`` are trace contexts of the events, at most as many as a span may have links.
    """

    events: int
    reports: int
    contexts: tuple[str, ...] = ()


class Claims:
    """Claims due events by windows of ``window`` and by ``dimensions``."""

    def __init__(self, database: Database, *, window: timedelta, dimensions: Sequence[str]) -> None:
        self._database = database
        self._window = window
        self._dimensions = list(dimensions)

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
                    "closed_before": closed_before(now, self._window),
                    "most": most,
                    "traceparent": traceparent,
                    "links": 0 if traceparent is None else MAX_LINKS,
                },
            )
            row = result.one()
            return Claimed(row.events, row.reports, tuple(row.contexts))

        return await self._database.run(work)
