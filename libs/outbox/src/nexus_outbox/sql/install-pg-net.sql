-- New users of the host database are announced to Nexus metering by pg_net: trigger,
-- net.http_post, events API. This is best effort: pg_net sends each request once and does not
-- retry. "customer-provisioner backfill" announces the users that were missed. The outbox
-- (install.sql) needs no repair, and carries tool runs, too.
--
-- Run this file with psql -v ON_ERROR_STOP=1 or in an SQL editor, as an ordinary role that may
-- create a schema in this database and use the schema "net" (on Supabase: postgres). To run the file
-- again is harmless. Everything is in the schema "metering_pg_net"; uninstall-pg-net.sql removes it.
-- PostgreSQL 14 or later.

BEGIN;
SET LOCAL lock_timeout = '2s';

DO $$
BEGIN
    IF obj_description(to_regnamespace('metering_pg_net'), 'pg_namespace') LIKE 'nexus-pg-net %' THEN
        RETURN;
    END IF;
    IF to_regnamespace('metering_pg_net') IS NOT NULL THEN
        RAISE EXCEPTION 'there is another schema "metering_pg_net" in this database';
    END IF;
    IF to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') IS NULL THEN
        RAISE EXCEPTION 'pg_net is not there'
            USING HINT = 'CREATE EXTENSION pg_net; it needs shared_preload_libraries.';
    END IF;
END $$;

CREATE SCHEMA IF NOT EXISTS metering_pg_net;
COMMENT ON SCHEMA metering_pg_net IS 'nexus-pg-net 1';
REVOKE ALL ON SCHEMA metering_pg_net FROM PUBLIC;

CREATE TABLE IF NOT EXISTS metering_pg_net.settings (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    source text NOT NULL DEFAULT 'platform' CHECK (char_length(source) BETWEEN 1 AND 200),
    url text,
    api_key text
);
COMMENT ON COLUMN metering_pg_net.settings.source IS
    'the "source" of events: the name of this platform, always the same';
COMMENT ON COLUMN metering_pg_net.settings.url IS
    'address of the events API, without /v1/events; if null, the setting app.edge_function_url';
COMMENT ON COLUMN metering_pg_net.settings.api_key IS
    'key of the events API; if null, the setting app.service_role_key, which every role can read';
INSERT INTO metering_pg_net.settings DEFAULT VALUES ON CONFLICT DO NOTHING;

-- The trigger on the table of users. It never fails the host's statement: whatever is wrong, the
-- server's log has a line with the user's id. Its arguments are the names of the columns with the id
-- and the e-mail address, and the path of the name.
CREATE OR REPLACE FUNCTION metering_pg_net.user_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms'
AS $$
DECLARE
    facts jsonb;
    subject text;
    address text;
    display_name text;
    settings record;  -- a row type would make the host's statement fail if the table were gone
BEGIN
    facts := to_jsonb(NEW);
    subject := facts ->> TG_ARGV[0];
    address := nullif(btrim(facts ->> TG_ARGV[1]), '');
    IF address IS NULL THEN  -- user.created.v1 needs one; the first address makes the event
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND btrim(to_jsonb(OLD) ->> TG_ARGV[1]) <> '' THEN
        RETURN NULL;
    END IF;
    IF TG_ARGV[2] <> '{}' THEN  -- '{}' is the path of the whole row
        display_name := facts #>> TG_ARGV[2]::text[];
        -- A name that breaks the contract must not cost the user the event: names are optional.
        display_name := left(regexp_replace(display_name, '[\u0001-\u001f\u007f]', '', 'g'), 256);
    END IF;
    SELECT * INTO settings FROM metering_pg_net.settings;
    settings.url := coalesce(settings.url, current_setting('app.edge_function_url', true));
    settings.api_key := coalesce(settings.api_key, current_setting('app.service_role_key', true));
    IF coalesce(settings.url, '') = '' OR coalesce(settings.api_key, '') = '' THEN
        RAISE LOG 'metering: user % is not announced: the API''s address or key is not set', subject;
        RETURN NULL;
    END IF;
    PERFORM net.http_post(
        url => rtrim(settings.url, '/') || '/v1/events',
        headers => jsonb_build_object(
            'Content-Type', 'application/json', 'Authorization', 'Bearer ' || settings.api_key),
        body => jsonb_build_object(
            'specversion', '1.0',
            'id', gen_random_uuid(),
            'source', settings.source,
            'type', 'user.created.v1',
            'time', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'data', jsonb_build_object(
                'user_id', subject, 'email', address, 'name', display_name)),
        timeout_milliseconds => 10000);
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'metering: user % is not announced: SQLSTATE %', subject, SQLSTATE;
    RETURN NULL;
END $$;

-- For the owner. It runs with the rights of whoever calls it.
CREATE OR REPLACE FUNCTION metering_pg_net.watch_users(
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
        'CREATE OR REPLACE TRIGGER nexus_metering_pg_net AFTER INSERT OR UPDATE OF %I ON %s'
        ' FOR EACH ROW EXECUTE FUNCTION metering_pg_net.user_changed(%L, %L, %L)',
        email_column, users, id_column, email_column, name_path);
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA metering_pg_net FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA metering_pg_net FROM PUBLIC;

COMMIT;
