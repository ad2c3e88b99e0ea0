"""Bringing a RabbitMQ broker to the described topology, and saying how it differs from it."""
