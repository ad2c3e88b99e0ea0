"""Media types of requests."""

import pytest

from nexus_service.media_types import media_type_of


@pytest.mark.parametrize(
    ("content_type", "coding", "found"),
    [
        ("application/json", None, "application/json"),
        ('Application/JSON ; charset="UTF-8"; x=y', "Identity", "application/json"),
        ("application/json; charset=utf-16", None, None),
        ("application/json; charset=utf-8; charset=latin1", None, None),
        ("application/json", "gzip", None),
        (None, None, ""),
    ],
)
def test_only_plain_utf_8_has_a_media_type(
    content_type: str | None, coding: str | None, found: str | None
) -> None:
    """Parameters other than the character set do not matter."""
    assert media_type_of(content_type, coding) == found
