"""Blocks of code on the pages of this repository."""

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[2] / "docs"


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's blocks of code in ``language``."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def runbook_statement(begin: str) -> str:
    """Return the one statement in the runbook that begins so."""
    text = (DOCS / "runbook.md").read_text(encoding="utf-8")
    [found] = set(re.findall(rf"`({re.escape(begin)}[^`]*)`", text))
    return str(found)
