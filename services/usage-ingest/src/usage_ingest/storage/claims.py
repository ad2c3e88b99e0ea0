"""Claims: due events become reports, in one statement, and no event is in two claims."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from nexus_database import Database
from nexus_messaging.tracing import MAX_LINKS
from nexus_plans.parts import ROUTE_SIGN
from usage_ingest.charging import NO_PLAN, Charges, UniqueMeters, parameter, unique_parameter
from usage_ingest.columns import NEW_ID
from usage_ingest.payers import assigned_at
from usage_ingest.storage.first_uses import report_first_uses
from usage_ingest.windows import closed_before

MAX_EVENTS: Final = 50_000
"""Of one claim, which takes a second or less. Each full claim reports one window in two parts."""


@dataclass(frozen=True, slots=True)
class _Source:
    """What is claimed: the table's alias ``row`` of ``table``, joined to its event ``e``."""

    table: str
    row: str
    joined: str
    readings: str
    late: bool


_EVENTS: Final = _Source("usage_events", "e", "usage_events e", "e.readings", late=False)
_LATE: Final = _Source(
    "late_readings",
    "l",
    "late_readings l JOIN usage_events e USING (event_id)",
    "jsonb_build_object(l.key, l.value)",
    late=True,
)


def _statement(of: _Source) -> TextClause:
    # A claim is of one account with one plan, of one window and dimensions; without windows, of one
    # event. A window is split at a border of the account's billing periods, so that each part
    # counts in its own, and at the moment before which usage is reported in another way. Few
    # windows have a border: those are found for all accounts at once, and the periods are looked up
    # for their rows alone. Rows are found again by their place in the table: it is theirs while
    # they are locked. Each claim carries the places of its rows: a join back to them would be
    # quadratic wherever the table's statistics are from a time when nothing was due, and two arrays
    # keep the planner from reading the whole table if much was. What was not marked would not be
    # reported either. What has no customer is no claim: its rows wait again, since their user was
    # assigned to an account without one; what came late to them is not taken. Nor is what counts on
    # a route that is not in the file of plans, or on any route by a plan that is not in it: it
    # would be charged on no meter, or by another plan, for ever. A search of their text tells
    # nearly all readings without such a route from the others, in a fraction of the time that
    # reading their keys takes. Plans are looked up only if there are any charges by plan. Rows that
    # are sorted and grouped are kept narrow: an account's customer is looked up once for a claim.
    # Half a unit is rounded up.
    account = "coalesce(assigned.account_id, e.user_id)"
    has_customer = f"EXISTS (SELECT FROM billing_accounts WHERE user_id = {account})"
    unknown = f"""{of.readings} - CASE
                WHEN planned.plan_type IS NULL OR CAST(:charges AS jsonb) ? planned.plan_type
                THEN CAST(:routes AS text[]) ELSE '{{}}' END"""
    put_back = "due" if of.late else "waiting"
    return text(f"""
WITH taken AS MATERIALIZED (
    SELECT {of.row}.ctid AS place, {account} AS account_id, e.occurred_at, e.traceparent,
           coalesce(planned.plan_type, '{NO_PLAN}') AS plan,
           CASE WHEN :window = 0 THEN e.event_id END AS alone,
           date_bin(make_interval(secs => greatest(:window, 1)), e.occurred_at, 'epoch') AS bucket,
           CASE WHEN cardinality(CAST(:dimensions AS text[])) = 0 THEN jsonb '{{}}'
                ELSE (SELECT jsonb_object_agg(d.name, to_jsonb(e) ->> d.name)
                        FROM unnest(CAST(:dimensions AS text[])) AS d(name)) END AS dimensions
      FROM {of.joined}
      {assigned_at("e")}
      LEFT JOIN LATERAL (
           SELECT plan_type FROM account_plans p
            WHERE p.account_id = {account} AND p.since <= e.occurred_at
            ORDER BY p.since DESC LIMIT 1) planned ON CAST(:charges AS jsonb) IS NOT NULL
     WHERE {of.row}.billing_state = 'due' AND {of.row}.occurred_at < :closed_before
           {f"AND {has_customer}" if of.late else ""}
       AND (strpos(({unknown})::text, '"{ROUTE_SIGN}') = 0
            OR NOT EXISTS (SELECT FROM jsonb_object_keys({unknown}) AS k(key)
                            WHERE starts_with(key, '{ROUTE_SIGN}')))
     ORDER BY {of.row}.occurred_at
     LIMIT :most
       FOR UPDATE OF {of.row} SKIP LOCKED
), split AS MATERIALIZED (
    SELECT s.account_id, b.bucket
      FROM (SELECT min(occurred_at) AS first, max(occurred_at) AS last FROM taken) span
     CROSS JOIN LATERAL (
           SELECT subscription_id, period_start AS at FROM subscription_periods
            WHERE period_start > span.first AND period_start <= span.last
            UNION ALL
           SELECT subscription_id, period_end FROM subscription_periods
            WHERE period_end > span.first AND period_end <= span.last) p
     CROSS JOIN LATERAL (
           SELECT account_id FROM account_subscriptions
            WHERE subscription_id = p.subscription_id OFFSET 0) s
     CROSS JOIN LATERAL (
           SELECT date_bin(make_interval(secs => greatest(:window, 1)), p.at, 'epoch') AS bucket) b
     WHERE :window > 0 AND p.at <> b.bucket
), claims AS MATERIALIZED (
    SELECT CASE WHEN a.user_id IS NOT NULL THEN {NEW_ID} END AS claim_id, g.account_id,
           a.stripe_customer_id, a.generation, g.plan, g.dimensions, g.occurred_at, g.places,
           CASE WHEN g.shadow THEN 'shadow' ELSE 'pending' END AS state
      FROM (SELECT account_id, plan, dimensions, shadow, min(occurred_at) AS occurred_at,
                   array_agg(place) AS places
              FROM (SELECT t.*, t.occurred_at < CAST(:live_from AS timestamptz) AS shadow,
                           CASE WHEN (t.account_id, t.bucket) IN (SELECT * FROM split) THEN (
                                SELECT max(b.at)
                                  FROM (SELECT subscription_id FROM account_subscriptions
                                         WHERE account_id = t.account_id OFFSET 0) s
                                 CROSS JOIN LATERAL (
                                       SELECT period_start, period_end FROM subscription_periods
                                        WHERE subscription_id = s.subscription_id OFFSET 0) p
                                 CROSS JOIN LATERAL (VALUES (p.period_start), (p.period_end)) b(at)
                                 WHERE b.at <= t.occurred_at)
                           END AS begins
                      FROM taken t) t
             GROUP BY account_id, plan, alone, bucket, begins, shadow, dimensions) g
      LEFT JOIN LATERAL (
           SELECT user_id, stripe_customer_id, generation FROM billing_accounts
            WHERE user_id = g.account_id OFFSET 0) a ON true
), marked AS (
    UPDATE {of.table} {of.row}
       SET billing_state = CASE WHEN p.claim_id IS NULL THEN '{put_back}' ELSE 'claimed' END,
           claim_id = p.claim_id
      FROM (SELECT array_agg(claim_id) AS ids, array_agg(place) AS places
              FROM (SELECT claim_id, unnest(places) AS place FROM claims) c) a
     CROSS JOIN unnest(a.ids, a.places) AS p(claim_id, place)
     WHERE {of.row}.ctid = p.place
    RETURNING p.claim_id, {of.readings} AS readings
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
           SELECT CASE WHEN starts_with(s.key, '{ROUTE_SIGN}')
                       THEN f.charges -> c.plan -> s.key
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
        dimensions, occurred_at, event_count, traceparent, late, state)
    SELECT m.report_id, 'nexus:' || m.report_id, claim_id, c.account_id, c.stripe_customer_id,
           c.generation, m.meter, m.value, c.dimensions, c.occurred_at, m.event_count,
           CAST(:traceparent AS text), {of.late}, c.state
      FROM metered m
      JOIN claims c USING (claim_id)
    RETURNING state
), counting AS (
    SELECT c.claim_id, c.account_id, c.stripe_customer_id, c.generation, c.dimensions, c.state,
           c.occurred_at, CASE WHEN u.meters ? c.plan THEN u.meters ->> c.plan
                               ELSE u.meters ->> '{NO_PLAN}' END AS meter
      FROM claims c
     CROSS JOIN (SELECT CAST(:unique_meters AS jsonb) AS meters) u
     WHERE u.meters IS NOT NULL AND c.claim_id IS NOT NULL
)
SELECT (SELECT count(*) FROM marked WHERE claim_id IS NOT NULL) AS events,
       (SELECT count(*) FROM marked WHERE claim_id IS NULL) AS put_back,
       (SELECT count(*) FROM reported WHERE state = 'pending') AS reports,
       (SELECT count(*) FROM reported WHERE state = 'shadow') AS shadow,
       (SELECT coalesce(sum(event_count), 0)::bigint FROM charged WHERE meter IS NULL)
           AS without_meter,
       (SELECT jsonb_agg(to_jsonb(c)) FROM counting c WHERE meter IS NOT NULL)::text
           AS counting_tools,
       ARRAY(SELECT DISTINCT traceparent FROM taken WHERE traceparent IS NOT NULL
              LIMIT :links) AS contexts
""")  # noqa: S608 - of this project's constants


CLAIM: Final = _statement(_EVENTS)
CLAIM_LATE: Final = _statement(_LATE)


@dataclass(frozen=True, slots=True)
class Claimed:
    """How many events were claimed, and how many reports they became, beside ``shadow`` reports.

    ``put_back`` is how many wait again, since their account has no customer. ``without_meter`` is
    how many readings are charged on no meter by their account's plan. ``contexts`` are trace
    contexts of the events, at most as many as a span may have links.
    """

    events: int
    reports: int
    put_back: int = 0
    without_meter: int = 0
    contexts: tuple[str, ...] = ()
    shadow: int = 0

    @property
    def taken(self) -> int:
        """How many due events it took, of ``most``."""
        return self.events + self.put_back


class Claims:
    """Claims due events by windows of ``window`` and by ``dimensions``, charged by ``charges``.

    ``routes`` are all keys of routes that the file of plans has, also those that no plan has a
    meter for. Readings of other routes stay due, with their runs, until the file has them again;
    so does any route of an account whose plan is not among ``charges``. Usage of before
    ``live_from`` becomes reports that are never forwarded.
    """

    def __init__(
        self,
        database: Database,
        *,
        window: timedelta,
        dimensions: Sequence[str],
        charges: Charges = MappingProxyType({}),
        routes: Collection[str] = (),
        unique_meters: UniqueMeters = MappingProxyType({}),
        live_from: datetime | None = None,
    ) -> None:
        self._database = database
        self._window = window
        self._dimensions = list(dimensions)
        self._charges = parameter(charges)
        self._routes = sorted(routes)
        self._unique_meters = unique_parameter(unique_meters)
        self._live_from = live_from

    async def claim(
        self, now: datetime, *, most: int = MAX_EVENTS, traceparent: str | None = None
    ) -> Claimed:
        """Claim up to ``most`` due events whose window has closed at ``now``.

        Any number of processes may claim at once: each takes rows that no other has locked.
        ``traceparent``, the claim's own trace context, is stored with the reports; without one no
        contexts of the events are read.

        Raises:
            DatabaseUnavailableError: nothing was claimed.
        """
        return await self._claim(CLAIM, now, most, traceparent, self._unique_meters)

    async def claim_late(
        self, now: datetime, *, most: int = MAX_EVENTS, traceparent: str | None = None
    ) -> Claimed:
        """Claim up to ``most`` readings that came later than their runs, likewise.

        They are taken whatever became of their events, once the events' accounts have customers.

        Raises:
            DatabaseUnavailableError: nothing was claimed.
        """
        return await self._claim(CLAIM_LATE, now, most, traceparent, None)

    async def _claim(
        self,
        statement: TextClause,
        now: datetime,
        most: int,
        traceparent: str | None,
        unique_meters: str | None,
    ) -> Claimed:
        async def work(connection: AsyncConnection) -> Claimed:
            result = await connection.execute(
                statement,
                {
                    "window": int(self._window.total_seconds()),
                    "dimensions": self._dimensions,
                    "charges": self._charges,
                    "routes": self._routes,
                    "unique_meters": unique_meters,
                    "live_from": self._live_from,
                    "closed_before": closed_before(now, self._window),
                    "most": most,
                    "traceparent": traceparent,
                    "links": 0 if traceparent is None else MAX_LINKS,
                },
            )
            row = result.one()
            made = Counter({"pending": row.reports, "shadow": row.shadow})
            if row.counting_tools is not None:
                made += await report_first_uses(connection, row.counting_tools, traceparent)
            return Claimed(
                row.events,
                made["pending"],
                row.put_back,
                row.without_meter,
                tuple(row.contexts),
                made["shadow"],
            )

        return await self._database.run(work)
