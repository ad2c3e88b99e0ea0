"""Run the migrations on the connection that the migrate command opened."""

from nexus_database.migrations import run_environment

run_environment()
