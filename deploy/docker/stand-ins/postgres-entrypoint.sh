#!/bin/bash
# What this repository uses of the official image's entry point: the first start makes the
# cluster, sets the superuser's password and runs /docker-entrypoint-initdb.d.
set -eu

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    password=${POSTGRES_PASSWORD:-$(cat "$POSTGRES_PASSWORD_FILE")}
    initdb --username="${POSTGRES_USER:-postgres}" --auth-host=scram-sha-256 --auth-local=trust \
        --encoding=UTF8 --locale=C.UTF-8 --pwfile=<(printf '%s\n' "$password")
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=" start
    export PGHOST=/var/run/postgresql PGUSER=${POSTGRES_USER:-postgres}
    for script in /docker-entrypoint-initdb.d/*.sh; do
        if [ -x "$script" ]; then
            "$script"
        elif [ -e "$script" ]; then
            # shellcheck disable=SC1090 # as the official entry point does with such files
            . "$script"
        fi
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    unset PGHOST PGUSER
fi
exec "$@" -c "listen_addresses=*"
