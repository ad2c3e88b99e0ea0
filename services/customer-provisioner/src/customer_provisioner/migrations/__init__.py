"""The migrations of customer-provisioner's database."""
