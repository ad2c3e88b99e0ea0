"""Creates one Stripe customer for each user, and tells the other services about it."""
