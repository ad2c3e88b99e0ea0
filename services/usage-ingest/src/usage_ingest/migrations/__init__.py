"""The revisions of the usage-ingest database."""
