-- Removes the outbox of Nexus metering: its schema, everything in it, and the triggers on tables of
-- users. It refuses while events wait. To lose them on purpose, run before:
--     DELETE FROM metering.outbox WHERE sent_at IS NULL; DELETE FROM metering.held;
-- Run it as the role that owns the outbox. The roles that were admitted lose their rights and stay.

BEGIN;
SET LOCAL lock_timeout = '2s';

DO $$
BEGIN
    IF to_regnamespace('metering') IS NULL THEN
        RETURN;
    END IF;
    IF coalesce(obj_description(to_regnamespace('metering'), 'pg_namespace'), '')
       NOT LIKE 'nexus-outbox %' THEN
        RAISE EXCEPTION 'the schema "metering" is not the outbox''s';
    END IF;
    -- With the function go its triggers, also on tables of another owner.
    DROP FUNCTION metering.user_changed() CASCADE;
    LOCK TABLE metering.outbox, metering.held;
    IF EXISTS (SELECT FROM metering.outbox WHERE sent_at IS NULL)
       OR EXISTS (SELECT FROM metering.held) THEN
        RAISE EXCEPTION 'there are events that were not published: see metering.status'
            USING HINT = 'Let nexus-outbox publish them, or delete them first.';
    END IF;
    DROP SCHEMA metering CASCADE;
END $$;

COMMIT;
