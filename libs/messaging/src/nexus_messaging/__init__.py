"""How Nexus metering's services talk over RabbitMQ: topology, publishing, consumption, retries."""
