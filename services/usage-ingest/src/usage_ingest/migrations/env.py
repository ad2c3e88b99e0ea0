"""Alembic's entry into the migrations of usage-ingest."""

from nexus_database.migrations import run_environment

run_environment()
