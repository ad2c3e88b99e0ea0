"""The web component's package: its tests on Node, what would be published, and its size."""

import gzip
import json
import re
from pathlib import Path

from support.node import build_component, component_package, npm

MAX_KILOBYTES = 60
"""Of the module as a server sends it."""

DEMO = {"dist/demo/demo.css", "dist/demo/demo.js", "dist/demo/index.html"}


def test_figures_texts_and_answers_on_node() -> None:
    """Everything that needs no browser; the rest is in ``tests/browser``."""
    tests = npm(component_package(), "test")

    assert tests.returncode == 0, tests.stdout + tests.stderr


def test_package_publishes_one_module_its_types_and_a_demo() -> None:
    """Neither tests nor sources, and no dependency."""
    packed = npm(component_package(), "pack", "--dry-run", "--json")

    [package] = json.loads(packed.stdout)
    paths = {file["path"] for file in package["files"]}
    scripts = {path for path in paths if not path.endswith(".d.ts")}
    assert scripts == {"README.md", "package.json", "dist/nexus-usage.js", *DEMO}
    assert {"dist/index.d.ts", "dist/element.d.ts", "dist/texts.d.ts"} <= paths
    manifest = json.loads((component_package() / "package.json").read_text(encoding="utf-8"))
    assert "dependencies" not in manifest


def test_module_is_small_complete_and_names_its_licence(tmp_path: Path) -> None:
    """It imports nothing, and has no address of anybody in it but the licensed code's own."""
    build_component(tmp_path)
    module = (tmp_path / "nexus-usage.js").read_bytes()
    text = module.decode()

    assert len(gzip.compress(module)) < MAX_KILOBYTES * 1000
    assert "The MIT License" in text
    assert re.search(r"\bimport\b\s*[({\"']|(?<![\"'])\bfrom\s*\"", text) is None
    assert re.search(r"https?://", text) is None
    assert re.search(r"innerHTML|insertAdjacentHTML|\beval\(|new Function", text) is None
