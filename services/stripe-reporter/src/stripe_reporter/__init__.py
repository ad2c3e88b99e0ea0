"""Sends each usage report to Stripe as one meter event, once."""
