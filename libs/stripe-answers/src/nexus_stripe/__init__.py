"""Calls to Stripe whose outcome is always a value, whatever the network or a gateway answers."""
