"""Stripe: the calls that are made, what their answers mean, and the meters that they need."""
