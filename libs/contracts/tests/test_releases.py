"""The command that holds the contracts against their releases, and keeps those of a new one."""

import json
import shutil
from pathlib import Path

import pytest

from nexus_contracts import releases
from nexus_contracts.releases import main

PACKAGE = Path(__file__).parent.parent


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    """Return a copy of the package's folder, with its releases and golden messages."""
    for folder in ("released", "tests/golden"):
        shutil.copytree(PACKAGE / folder, tmp_path / folder)
    return tmp_path


def test_contracts_keep_what_every_release_promised(capsys: pytest.CaptureFixture[str]) -> None:
    """The gate itself, on this checkout."""
    assert main(["--contracts", str(PACKAGE), "check"]) == 0, capsys.readouterr().err


def test_check_names_each_broken_contract_field_rule_and_release(
    contracts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field that a release has and this checkout has not, and a contract likewise."""
    file = contracts / "released/0.1.0/schemas/user.created.v1.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    schema["$defs"]["UserCreatedV1"]["properties"]["plan"] = {"type": "string"}
    file.write_text(json.dumps(schema), encoding="utf-8")
    file.with_name("user.deleted.v1.json").write_text(json.dumps(schema), encoding="utf-8")

    assert main(["--contracts", str(contracts), "check"]) == 1

    assert capsys.readouterr().err.splitlines() == [
        "user.created.v1 data.plan: removed; release 0.1.0 has it",
        "user.deleted.v1: removed; release 0.1.0 has it",
    ]


def test_keep_stores_schemas_messages_and_meanings_of_a_release(contracts: Path) -> None:
    """From then on the contracts are held against it, too."""
    assert main(["--contracts", str(contracts), "keep", "0.2.0"]) == 0

    release = contracts / "released/0.2.0"
    golden = {path.name: path.read_bytes() for path in (contracts / "tests/golden").iterdir()}
    assert {path.name: path.read_bytes() for path in (release / "messages").iterdir()} == golden
    assert {path.name for path in (release / "meanings").iterdir()} == golden.keys()
    schemas = {path.name: path.read_text() for path in (release / "schemas").iterdir()}
    assert schemas == {path.name: path.read_text() for path in (PACKAGE / "schemas").iterdir()}
    assert main(["--contracts", str(contracts), "check"]) == 0


def test_keep_changes_no_release_that_is_there(
    contracts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was promised stays promised."""
    before = sorted((contracts / "released").rglob("*"))

    assert main(["--contracts", str(contracts), "keep", "0.1.0"]) == 1

    assert "a release never changes" in capsys.readouterr().err
    assert sorted((contracts / "released").rglob("*")) == before


def test_broken_contracts_are_not_kept(contracts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A release that breaks an earlier one must not become a promise itself."""
    schemas = contracts / "released/0.1.0/schemas"
    shutil.copy(schemas / "user.created.v1.json", schemas / "user.deleted.v1.json")

    assert main(["--contracts", str(contracts), "keep", "0.2.0"]) == 1

    assert "user.deleted.v1: removed" in capsys.readouterr().err
    assert not (contracts / "released/0.2.0").exists()


def test_released_version_whose_contracts_are_not_kept_fails_the_check(
    contracts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever sets the version of a release and forgets the command learns of it at once."""
    monkeypatch.setattr(releases, "installed_version", lambda _name: "0.2.0")

    assert main(["--contracts", str(contracts), "check"]) == 1
    assert "run `keep 0.2.0`" in capsys.readouterr().err

    assert main(["--contracts", str(contracts), "keep", "0.2.0"]) == 0
    assert main(["--contracts", str(contracts), "check"]) == 0
