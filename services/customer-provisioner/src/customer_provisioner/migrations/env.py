"""Alembic's entry into the migrations of customer-provisioner."""

from nexus_database.migrations import run_environment

run_environment()
