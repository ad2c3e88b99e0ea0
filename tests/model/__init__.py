"""BillingMachine as a state machine: driven at random on real databases, and predicted."""
