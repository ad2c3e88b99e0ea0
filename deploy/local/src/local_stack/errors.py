"""What every expected failure of this package has in common."""


class LocalStackError(Exception):
    """Something that is no fault of this program, told in words a person can act on."""
