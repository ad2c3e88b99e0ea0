-- Removes what install-pg-net.sql made: its schema, and the triggers on tables of users. pg_net and
-- the settings stay. Run it as the role that ran install-pg-net.sql.

BEGIN;
SET LOCAL lock_timeout = '2s';

DO $$
BEGIN
    IF to_regnamespace('metering_pg_net') IS NULL THEN
        RETURN;
    END IF;
    IF coalesce(obj_description(to_regnamespace('metering_pg_net'), 'pg_namespace'), '')
       NOT LIKE 'nexus-pg-net %' THEN
        RAISE EXCEPTION 'the schema "metering_pg_net" is not of Nexus metering';
    END IF;
    -- With the function go its triggers, also on tables of another owner.
    DROP SCHEMA metering_pg_net CASCADE;
END $$;

COMMIT;
