#!/bin/bash
# Each service's database, the role that owns its tables and the role that may only use them; the
# role that reads usage for users' pages; and the role as which the exporter asks, which sees
# statistics and no table.
# The image runs this once, as superuser, when its volume is empty.
set -eu

for service in customer-provisioner usage-ingest stripe-reporter; do
    # A password must not reach the server's log with a failed statement. Granting CONNECT one by
    # one keeps each service's role out of every other service's database.
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres \
        --set=database="${service//-/_}" \
        --set=owner="${service//-/_}_owner" \
        --set=owner_password_file="/run/secrets/database-password-$service-owner" \
        --set=password_file="/run/secrets/database-password-$service" <<'SQL'
SET log_min_error_statement = panic;
\set owner_password `cat :'owner_password_file'`
\set password `cat :'password_file'`
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"database" LOGIN PASSWORD :'password';
CREATE DATABASE :"database" OWNER :"owner";
REVOKE CONNECT ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"owner", :"database";
SQL
done

# The usage API's role, which reads views of one database; the migration gives it its rights there.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres \
    --set=password_file=/run/secrets/database-password-usage-reader <<'SQL'
SET log_min_error_statement = panic;
\set password `cat :'password_file'`
CREATE ROLE usage_reader LOGIN PASSWORD :'password';
ALTER ROLE usage_reader SET default_transaction_read_only = on;
GRANT CONNECT ON DATABASE usage_ingest TO usage_reader;
SQL

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres \
    --set=password_file=/run/secrets/database-password-postgres-exporter <<'SQL'
SET log_min_error_statement = panic;
\set password `cat :'password_file'`
CREATE ROLE postgres_exporter LOGIN PASSWORD :'password';
GRANT pg_monitor TO postgres_exporter;
SQL
