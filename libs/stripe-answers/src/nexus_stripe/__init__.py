"""Calls to Stripe: what came of each is a value, whatever the network or a gateway answers."""
