"""Recovery: a ledger that was restored from a backup is completed from the reporter's journal."""
