"""usage-ingest: a permanent ledger of tool runs, and the usage reports that come from it."""
