"""The dependencies of the images."""

import re
import tomllib
from pathlib import Path
from typing import Any

from .conftest import ROOT

SHIPPED = (
    "libs/contracts",
    "libs/messaging",
    "libs/database",
    "libs/service",
    "libs/broker-admin",
    "libs/plans",
    "libs/stripe-answers",
    "libs/stripe-emulator",
    "services/*",
)


def _pinned(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==([^ ]+)", text, re.MULTILINE))


def _project(package: Path) -> dict[str, Any]:
    text = (package / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def _needed(package: Path) -> set[str]:
    project = _project(package)
    return {re.split(r"[\[<>=]", each, maxsplit=1)[0] for each in project["dependencies"]}


def test_images_pin_every_dependency_of_the_packages() -> None:
    """Packages are installed without their dependencies, so the pinned list must name them all."""
    packages = [package for pattern in SHIPPED for package in ROOT.glob(pattern)]

    ours = {_project(package)["name"] for package in packages}
    needed = set().union(*map(_needed, packages)) - ours

    assert len(packages) == 11
    assert needed - set(_pinned("runtime.txt")) == set()


def test_images_have_the_versions_that_were_tested() -> None:
    """The images have the versions of the tests; `make lock` brings both lists together."""
    tested = _pinned("dev.txt")

    assert {name: tested.get(name) for name in _pinned("runtime.txt")} == _pinned("runtime.txt")
    assert {name: tested.get(name) for name in _pinned("build.txt")} == _pinned("build.txt")
