"""Media types of requests: what `Content-Type` and `Content-Encoding` say of a body."""

import re
from typing import Final

_CHARSET: Final = re.compile(r'charset="?(?:utf-8|us-ascii)"?', re.IGNORECASE)


def media_type_of(content_type: str | None, content_encoding: str | None) -> str | None:
    """Return the media type of a body in lower case, without parameters.

    Returns:
        ``None`` if the body is compressed or its character set is not UTF-8.
    """
    media_type, *parameters = (part.strip() for part in (content_type or "").split(";"))
    charsets = [each for each in parameters if each.lower().startswith("charset=")]
    if (content_encoding or "identity").strip().lower() != "identity":
        return None
    return media_type.lower() if all(map(_CHARSET.fullmatch, charsets)) else None
