"""The base class of this package's expected errors."""


class LocalStackError(Exception):
    """An error that is no fault of this program; its text says what a person can do."""
