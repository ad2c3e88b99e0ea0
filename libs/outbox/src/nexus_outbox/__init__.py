"""Publishes events from an outbox in the PostgreSQL database of another service."""
