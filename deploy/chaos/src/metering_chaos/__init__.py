"""Random faults on the running stack, and every event counted through to the money."""
