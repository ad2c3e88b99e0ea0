"""The journal of calls, in PostgreSQL."""
