"""The revisions of this service's database, oldest first in ``versions``."""
