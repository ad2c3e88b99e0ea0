"""All SQL of the service: one class that writes profiles and one that reads them."""
