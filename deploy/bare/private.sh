#!/usr/bin/env bash
# A short part of the README's commands in a clone below a folder that only its owner may enter,
# such as root's home: servers that root starts as another user must work there too. The path has a
# space, and new files are accessible to their owner only.
set -euo pipefail

REPOSITORY=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git clone --quiet "$REPOSITORY" "$work/a clone"
cd "$work/a clone"
make setup
env -u STRIPE_SECRET_KEY .venv/bin/pytest -q deploy/local/tests/test_location.py \
    tests/integration/usage_ingest/test_recovery.py
.venv/bin/metering-demo --runs 100 --users 5
