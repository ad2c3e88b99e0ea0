"""The committed dashboards are the ones the code makes, and keep the house rules."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from metering_dashboards.__main__ import dashboards

HERE = Path(__file__).parent.parent
RUNBOOK = HERE.parent.parent / "docs" / "runbook.md"
FILES = sorted((HERE / "dashboards").glob("*.json"))


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a dashboard's panels without the headings of its rows."""
    return [each for each in board["panels"] if each["type"] != "row"]


ALL = [
    pytest.param(panel, id=f"{board['title']}: {panel['title']}")
    for board in (json.loads(path.read_text(encoding="utf-8")) for path in FILES)
    for panel in panels(board)
]
every_panel = pytest.mark.parametrize("panel", ALL)


def test_the_committed_dashboards_are_those_the_code_makes() -> None:
    """Whoever changes the code writes the JSON anew, with `metering-dashboards`."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in FILES}

    assert committed == dict(dashboards())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_lets_people_choose_the_data_source_and_the_runbooks_place(path: Path) -> None:
    """Both are variables, and nobody edits in the browser what the next start would undo."""
    board = json.loads(path.read_text(encoding="utf-8"))

    names = {each["name"]: each["type"] for each in board["templating"]["list"]}
    assert names == {"datasource": "datasource", "runbook": "textbox"}
    assert board["uid"] == f"metering-{path.stem}"
    assert not board["editable"]
    ids = [each["id"] for each in board["panels"]]
    assert len(ids) == len(set(ids))


@every_panel
def test_a_panel_says_what_it_shows_in_which_unit_from_the_chosen_source(
    panel: dict[str, Any],
) -> None:
    """Title, description and unit are set; the data source is the variable's."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    for each in (panel, *panel["targets"]):
        assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@every_panel
def test_every_series_has_a_name_and_every_rate_the_right_interval(panel: dict[str, Any]) -> None:
    """Legends are written, windows follow the zoom, and no query is tied to a job's name."""
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert "job=" not in target["expr"]
        windows = re.findall(r"\[([^\]]*)\]", target["expr"])
        assert set(windows) <= {"$__rate_interval"}


@every_panel
def test_a_panel_leads_to_a_section_of_the_runbook(panel: dict[str, Any]) -> None:
    """Its link names a heading that exists."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    [link] = panel["links"]

    assert link["url"].startswith("${runbook}#")
    assert link["url"].partition("#")[2] in anchors


def test_no_panel_is_shown_twice() -> None:
    """Titles are unique within a dashboard, so that people can speak of them."""
    for path in FILES:
        titles = [each["title"] for each in panels(json.loads(path.read_text(encoding="utf-8")))]
        assert len(titles) == len(set(titles))
    assert len(ALL) > 40
