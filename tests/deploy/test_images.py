"""The dependencies of the images."""

import re
import tomllib
from pathlib import Path

from .conftest import ROOT

SHIPPED = (
    "libs/contracts",
    "libs/messaging",
    "libs/database",
    "libs/service",
    "libs/broker-admin",
    "libs/stripe-answers",
    "libs/stripe-emulator",
    "services/*",
)
OURS = {"nexus-contracts", "nexus-messaging", "nexus-database", "nexus-stripe"}


def _pinned(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==([^ ]+)", text, re.MULTILINE))


def _needed(package: Path) -> set[str]:
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[\[<>=]", each, maxsplit=1)[0] for each in project["dependencies"]}


def test_images_pin_every_dependency_of_the_packages() -> None:
    """Packages are installed without their dependencies, so the pinned list must name them all."""
    packages = [package for pattern in SHIPPED for package in ROOT.glob(pattern)]

    needed = set().union(*map(_needed, packages)) - OURS

    assert len(packages) == 8
    assert needed - set(_pinned("runtime.txt")) == set()


def test_images_have_the_versions_that_were_tested() -> None:
    """The images have the versions of the tests; `make lock` brings both lists together."""
    tested = _pinned("dev.txt")

    assert {name: tested.get(name) for name in _pinned("runtime.txt")} == _pinned("runtime.txt")
    assert {name: tested.get(name) for name in _pinned("build.txt")} == _pinned("build.txt")
