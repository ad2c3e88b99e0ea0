"""CONTRIBUTING's recipes and the tree: what they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = (ROOT / "CONTRIBUTING.md").read_text().partition("## Recipes")[2]
PATHS = sorted(
    {
        path
        for path in re.findall(r"`([\w./-]+/[\w./-]+)`", RECIPES)
        if "NNNN" not in path
        and path.split("/")[0] in {"libs", "services", "deploy", "docs", "tests"}
    }
)


@pytest.mark.parametrize("path", PATHS)
def test_files_that_recipes_name_exist(path: str) -> None:
    """A recipe that names a file which was moved sends a newcomer astray."""
    assert (ROOT / path).exists()
