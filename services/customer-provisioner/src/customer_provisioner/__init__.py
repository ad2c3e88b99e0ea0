"""Creates one Stripe customer for each user, and announces it to the other services."""
