-- The outbox of Nexus metering, version 1: events are written in the transactions of the host
-- database and published later by the program nexus-outbox.
--
-- Run this file with psql -v ON_ERROR_STOP=1 or in an SQL editor, as an ordinary role that may
-- create a schema in this database. That role will own the outbox (on Supabase: postgres). To run
-- the file again is harmless. Everything is in the schema "metering"; uninstall.sql removes it.
-- PostgreSQL 14 or later.

BEGIN;
SET LOCAL lock_timeout = '2s';

DO $$
BEGIN
    IF obj_description(to_regnamespace('metering'), 'pg_namespace') LIKE 'nexus-outbox %' THEN
        RETURN;
    END IF;
    IF to_regnamespace('metering') IS NOT NULL THEN
        RAISE EXCEPTION 'there is another schema "metering" in this database'
            USING HINT = 'The outbox needs this name. Rename the other schema.';
    END IF;
END $$;

CREATE SCHEMA IF NOT EXISTS metering;
COMMENT ON SCHEMA metering IS 'nexus-outbox 1';
REVOKE ALL ON SCHEMA metering FROM PUBLIC;

-- Tables

CREATE TABLE IF NOT EXISTS metering.settings (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    source text NOT NULL DEFAULT 'platform' CHECK (char_length(source) BETWEEN 1 AND 200),
    notify boolean NOT NULL DEFAULT true
);
COMMENT ON COLUMN metering.settings.source IS
    'the "source" of events: the name of this platform, always the same';
COMMENT ON COLUMN metering.settings.notify IS
    'wake nexus-outbox at each commit. Commits with a notification wait for each other: set it to'
    ' false for thousands of commits per second, or if transactions are prepared (two-phase commit)';
INSERT INTO metering.settings DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Waiting: due_at is set. Published: sent_at is set. Set aside as invalid: neither is set.
CREATE TABLE IF NOT EXISTS metering.outbox (
    id uuid PRIMARY KEY,
    event jsonb NOT NULL,
    waiting_since timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    fault text,
    sent_at timestamptz,
    CHECK (due_at IS NULL OR sent_at IS NULL)
);
COMMENT ON COLUMN metering.outbox.due_at IS 'the next attempt; a loop that works on the row moves it';
COMMENT ON COLUMN metering.outbox.attempts IS 'attempts that the broker refused';
COMMENT ON COLUMN metering.outbox.fault IS 'why the event is refused or invalid; holds no value';
CREATE INDEX IF NOT EXISTS outbox_unsent ON metering.outbox (due_at) WHERE sent_at IS NULL;
CREATE INDEX IF NOT EXISTS outbox_sent ON metering.outbox (sent_at) WHERE sent_at IS NOT NULL;

-- What could not be written to the outbox. metering.recover() moves the rows with "recoverable".
CREATE TABLE IF NOT EXISTS metering.held (
    held_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    event jsonb,
    subject text,
    reason text NOT NULL,
    recoverable boolean NOT NULL,
    held_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN metering.held.subject IS 'the id of the user';

-- Inner functions; only the owner may execute them

CREATE OR REPLACE FUNCTION metering.envelope(
    event_id uuid, type text, source text, happened_at timestamptz, traceparent text, data jsonb
) RETURNS jsonb LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'specversion', '1.0',
        'id', event_id,
        'source', coalesce(source, (SELECT s.source FROM metering.settings s)),
        'type', type,
        'time', to_char(happened_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'traceparent', traceparent,
        'data', data)
$$;

-- Keeps an event that can't be written to the outbox. It never fails: if not even this row can be
-- written, the server's log has a line.
CREATE OR REPLACE FUNCTION metering.hold(
    event_id uuid, event jsonb, subject text, reason text, recoverable boolean
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO metering.held (event_id, event, subject, reason, recoverable)
    VALUES (event_id, event, subject, reason, recoverable AND event IS NOT NULL);
    RAISE LOG 'metering: event % is held: %', event_id, reason;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'metering: event % of user % is lost: % (then SQLSTATE %)',
        event_id, subject, reason, SQLSTATE;
END $$;

-- Writes an event; a repetition of a stored one changes nothing.
CREATE OR REPLACE FUNCTION metering.store(event_id uuid, event jsonb)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored jsonb;
BEGIN
    INSERT INTO metering.outbox (id, event) VALUES (event_id, event) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        IF (SELECT s.notify FROM metering.settings s) THEN
            PERFORM pg_notify('metering_outbox', '');
        END IF;
        RETURN;
    END IF;
    SELECT o.event -> 'data' INTO stored FROM metering.outbox o WHERE o.id = event_id;
    IF stored - 'metadata' <> (event -> 'data') - 'metadata' THEN
        PERFORM metering.hold(
            event_id, event, event #>> '{data,user_id}', 'event_id_taken', recoverable => false);
    END IF;
END $$;

-- What events say of a user. A name that breaks the contract must not cost the user the event.
CREATE OR REPLACE FUNCTION metering.user_facts(
    facts jsonb, id_column text, email_column text, name_path text
) RETURNS jsonb LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'user_id', facts ->> id_column,
        'email', nullif(btrim(facts ->> email_column), ''),
        'name', CASE WHEN name_path <> '{}' THEN  -- '{}' is the path of the whole row
            left(regexp_replace(
                facts #>> name_path::text[], '[\u0001-\u001f\u007f]', '', 'g'), 256) END)
$$;

-- The trigger on the table of users. It neither fails the host's statement nor delays it for long:
-- a lock on the outbox is waited for 200 ms at most. Its arguments are the names of the columns with
-- the id and the e-mail address, and the path of the name.
--
-- The time of an event is that of the trigger, which runs while the row is locked: the later of two
-- changes of one user has the later time, and this one counts. A removed address is not published.
CREATE OR REPLACE FUNCTION metering.user_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $$
DECLARE
    event_id uuid := gen_random_uuid();
    event jsonb;
    type text := 'user.created.v1';
    facts jsonb;
    former jsonb;
BEGIN
    facts := metering.user_facts(to_jsonb(NEW), TG_ARGV[0], TG_ARGV[1], TG_ARGV[2]);
    IF TG_OP = 'UPDATE' THEN
        former := metering.user_facts(to_jsonb(OLD), TG_ARGV[0], TG_ARGV[1], TG_ARGV[2]);
        IF facts -> 'name' = former -> 'name'
            AND (facts -> 'email' = former -> 'email' OR facts ->> 'email' IS NULL)
        THEN
            RETURN NULL;
        END IF;
        type := 'user.updated.v1';
        facts := jsonb_build_object(
            'user_id', facts -> 'user_id',
            'email', CASE WHEN facts -> 'email' <> former -> 'email' THEN facts -> 'email' END,
            'name', CASE WHEN facts -> 'name' <> former -> 'name'
                THEN coalesce(facts ->> 'name', '') END);
    ELSIF facts ->> 'email' IS NULL THEN
        type := 'user.created.v2';
    END IF;
    event := metering.envelope(event_id, type, NULL, clock_timestamp(), NULL, facts);
    PERFORM metering.store(event_id, event);
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    PERFORM metering.hold(
        event_id, event, facts ->> 'user_id', 'SQLSTATE ' || SQLSTATE, recoverable => true);
    RETURN NULL;
END $$;

-- For callers

CREATE OR REPLACE FUNCTION metering.tool_executed(
    user_id uuid,
    server_id text,
    tool_name text,
    origin text,
    status text DEFAULT 'succeeded',
    token_count bigint DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    event_id uuid DEFAULT NULL,
    executed_at timestamptz DEFAULT NULL,
    source text DEFAULT NULL,
    traceparent text DEFAULT NULL,
    model text DEFAULT NULL,
    input_tokens bigint DEFAULT NULL,
    output_tokens bigint DEFAULT NULL,
    cached_tokens bigint DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $$
DECLARE
    run_id uuid := coalesce(event_id, gen_random_uuid());
    type text := 'tool.executed.v1';
    run jsonb;
    event jsonb;
BEGIN
    run := jsonb_build_object(
        'user_id', user_id,
        'server_id', server_id,
        'tool_name', tool_name,
        'origin', origin,
        'status', status,
        'token_count', token_count,
        -- A body of more than 256 KiB is refused, and metadata has no effect on billing.
        'metadata', CASE WHEN octet_length(metadata::text) <= 131072 THEN metadata END);
    IF num_nonnulls(model, input_tokens, output_tokens, cached_tokens) > 0 THEN
        type := 'tool.executed.v2';
        run := run || jsonb_build_object(
            'model', model,
            'input_tokens', input_tokens,
            'output_tokens', output_tokens,
            'cached_tokens', cached_tokens);
    END IF;
    event := metering.envelope(
        run_id, type, source, coalesce(executed_at, clock_timestamp()), traceparent, run);
    PERFORM metering.store(run_id, event);
    RETURN run_id;
EXCEPTION WHEN OTHERS THEN
    PERFORM metering.hold(run_id, event, user_id::text, 'SQLSTATE ' || SQLSTATE, recoverable => true);
    RETURN run_id;
END $$;
COMMENT ON FUNCTION metering.tool_executed IS
    'Writes the event of a tool run in the transaction of the caller; returns its id. Never raises.'
    ' Give event_id to make a repeated call harmless. With a model or tokens by kind it is version 2.';

-- For nexus-outbox. Its own rights are few: it can neither change nor delete an event that waits.

CREATE OR REPLACE FUNCTION metering.prune(keep interval, most integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS (
        SELECT o.id FROM metering.outbox o WHERE o.sent_at < now() - keep
         ORDER BY o.sent_at LIMIT most FOR UPDATE SKIP LOCKED
    ), pruned AS (
        DELETE FROM metering.outbox o USING old WHERE o.id = old.id RETURNING 1
    )
    SELECT count(*) FROM pruned
$$;

CREATE OR REPLACE FUNCTION metering.recover(most integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH ready AS (
        SELECT h.held_id FROM metering.held h WHERE h.recoverable
         ORDER BY h.held_id LIMIT most FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM metering.held h USING ready WHERE h.held_id = ready.held_id
        RETURNING h.event_id, h.event
    ), written AS (
        INSERT INTO metering.outbox (id, event) SELECT t.event_id, t.event FROM taken t
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) FROM taken
$$;

-- For operators

CREATE OR REPLACE VIEW metering.status AS
SELECT count(*) FILTER (WHERE o.due_at IS NOT NULL AND o.fault IS NULL) AS waiting,
       count(*) FILTER (WHERE o.due_at IS NOT NULL AND o.fault IS NOT NULL) AS refused,
       count(*) FILTER (WHERE o.due_at IS NULL) AS invalid,
       (SELECT count(*) FROM metering.held) AS held,
       min(o.waiting_since) FILTER (WHERE o.due_at IS NOT NULL) AS waiting_since
  FROM metering.outbox o WHERE o.sent_at IS NULL;

CREATE OR REPLACE VIEW metering.problems AS
SELECT CASE WHEN o.due_at IS NULL THEN 'invalid' ELSE 'refused' END AS problem, o.id AS event_id,
       o.event #>> '{data,user_id}' AS user_id, o.fault AS reason, o.waiting_since AS since
  FROM metering.outbox o WHERE o.sent_at IS NULL AND o.fault IS NOT NULL
UNION ALL
SELECT 'held', h.event_id, h.subject, h.reason, h.held_at FROM metering.held h;

-- These run with the rights of whoever calls them.

CREATE OR REPLACE FUNCTION metering.watch_users(
    users regclass,
    id_column name DEFAULT 'id',
    email_column name DEFAULT 'email',
    name_path text[] DEFAULT '{}'
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[id_column, email_column, name_path[1]::name] LOOP
        IF wanted IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_attribute
             WHERE attrelid = users AND attname = wanted AND attnum > 0 AND NOT attisdropped
               AND (wanted <> id_column OR atttypid = 'uuid'::regtype))
        THEN
            RAISE EXCEPTION '% has no column "%"%', users, wanted,
                CASE WHEN wanted = id_column THEN ' of type uuid' ELSE '' END;
        END IF;
    END LOOP;
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER nexus_metering AFTER INSERT OR UPDATE OF %s ON %s'
        ' FOR EACH ROW EXECUTE FUNCTION metering.user_changed(%L, %L, %L)',
        concat_ws(', ', quote_ident(email_column), quote_ident(name_path[1])),
        users, id_column, email_column, name_path);
END $$;

CREATE OR REPLACE FUNCTION metering.admit_caller(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA metering TO %s', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION metering.tool_executed TO %s', role);
END $$;

CREATE OR REPLACE FUNCTION metering.admit_loop(role regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA metering TO %s', role);
    EXECUTE format('GRANT SELECT ON metering.outbox, metering.status TO %s', role);
    EXECUTE format(
        'GRANT UPDATE (waiting_since, due_at, attempts, fault, sent_at) ON metering.outbox TO %s',
        role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION metering.prune, metering.recover TO %s', role);
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA metering FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA metering FROM PUBLIC;

COMMIT;
