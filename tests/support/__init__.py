"""What tests stand on: a vhost and databases of their own, and conditions to wait for."""
