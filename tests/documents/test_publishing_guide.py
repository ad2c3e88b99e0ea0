"""Pages are true: the message they show is valid, and what they link to is there."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from nexus_contracts import ToolExecuted, read_event
from nexus_contracts.schemas import schema_of
from support.pages import DOCS, blocks

GUIDE = DOCS / "publishing.md"
PAGES = (
    GUIDE,
    DOCS / "from-a-billing-guide.md",
    DOCS / "runbook.md",
    *sorted((DOCS / "publishing").glob("*.md")),
)


def test_the_example_message_is_valid() -> None:
    """By the schema that the guide points to, and by how it is read."""
    message = json.loads(blocks(GUIDE, "json")[0])

    jsonschema.Draft202012Validator(schema_of(ToolExecuted)).validate(message)
    assert read_event(json.dumps(message).encode(), [ToolExecuted]).data.token_count == 1234


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """To files of this repository, and to headings of other pages."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if heading:
            assert heading in headings(target), link


def headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}
