#!/usr/bin/env bash
# The cheap part of the README's commands in a clone below a folder that only its owner may enter,
# as root's home is: what root starts as another user must work there too. There is a space in its
# path, and what is made in it is its owner's alone.
set -euo pipefail

REPOSITORY=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git clone --quiet "$REPOSITORY" "$work/a clone"
cd "$work/a clone"
make setup
env -u STRIPE_SECRET_KEY .venv/bin/pytest -q deploy/local/tests/test_places.py \
    tests/integration/usage_ingest/test_recovery.py
.venv/bin/metering-demo --runs 100 --users 5
