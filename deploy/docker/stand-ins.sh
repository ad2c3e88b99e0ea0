#!/bin/sh
# Stand-ins for the official images that docker-compose.yml and the Dockerfiles name, built from
# Debian packages and tagged alike, for a machine that reaches Debian's archive and no image
# registry. They have what this repository uses of the official images, and prove nothing about
# those. They shadow the official images on this engine until they are removed.
#
# Needs root, mmdebstrap, and an engine that answers to `docker`.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/stand-ins
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# stand_in SUITE PACKAGES DOCKERFILE TAG...
stand_in() {
    suite=$1 packages=$2 recipe=$3
    shift 3
    echo "stand-ins: $* from Debian $suite" >&2
    # A mirror that lags behind its Release file's date is good enough for a stand-in.
    mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Check-Valid-Until "false"' \
        --include="$packages" "$suite" "$work/root.tar"
    docker import --message "packages of Debian $suite" "$work/root.tar" "stand-in-root:$recipe" \
        >/dev/null
    rm "$work/root.tar"
    cp "$here/$recipe.Dockerfile" "$work/Dockerfile"
    cp "$here/postgres-entrypoint.sh" "$work/"
    # Where the way out leads through a proxy that signs for everybody, pip must trust it as well.
    cp /etc/ssl/certs/ca-certificates.crt "$work/" 2>/dev/null || : >"$work/ca-certificates.crt"
    for tag in "$@"; do
        docker build --quiet --tag "$tag" "$work" >/dev/null
    done
    docker image rm "stand-in-root:$recipe" >/dev/null
}

stand_in trixie ca-certificates,python3,python3-pip,python3-venv python python:3.13-slim
stand_in forky postgresql-18 postgres postgres:18
stand_in forky rabbitmq-server rabbitmq rabbitmq:4.3-management rabbitmq:4-management
stand_in forky prometheus prometheus prom/prometheus:v3.5.3
stand_in forky prometheus-postgres-exporter,wget postgres-exporter \
    prometheuscommunity/postgres-exporter:v0.19.1
docker image ls --filter label=stand-in
