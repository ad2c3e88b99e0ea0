"""The calls to Stripe, what each response means, and the circuit breaker in front of them."""
