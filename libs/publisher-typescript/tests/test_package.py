"""The TypeScript package: its own tests on Node, and what would be published."""

import json

from support.node import npm, publisher_package

MODULES = (
    "answers",
    "circuit",
    "decision",
    "delivery",
    "entitlements",
    "events",
    "index",
    "losses",
    "publisher",
    "request",
    "runtime",
    "tokens",
    "versions",
)
PUBLISHED = {
    "README.md",
    "package.json",
    *(f"dist/{module}.{kind}" for module in MODULES for kind in ("js", "d.ts")),
}


def test_client_keeps_its_promises_on_node() -> None:
    """Against a receiver that is killed, slow, silent, and answers as the events API does."""
    tests = npm(publisher_package(), "test")

    assert tests.returncode == 0, tests.stdout + tests.stderr


def test_package_publishes_its_code_and_types_alone() -> None:
    """Neither tests nor sources, and no dependency."""
    packed = npm(publisher_package(), "pack", "--dry-run", "--json")

    [package] = json.loads(packed.stdout)
    assert {file["path"] for file in package["files"]} == PUBLISHED
    manifest = json.loads((publisher_package() / "package.json").read_text())
    assert "dependencies" not in manifest
