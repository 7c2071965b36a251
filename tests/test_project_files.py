"""The forms of issues, the template of pull requests and the hooks of pre-commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_docs import COMMANDS, called

ROOT = Path(__file__).parent.parent
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_there_are_forms_for_faults_pictures_and_wishes() -> None:
    """There is a form for each kind of issue."""
    assert [path.stem for path in FORMS] == ["bug", "feature", "picture"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_can_be_filled_in(path: Path) -> None:
    """Each field has a label, ids are unique, something is required, and what is asked for can be produced."""
    form: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) == {"name", "description", "labels", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    for line in called(path.read_text(encoding="utf-8")):
        assert line.split()[0] in COMMANDS, line


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_links_of_forms_lead_somewhere(path: Path) -> None:
    """Each link of a form names a file of the main branch."""
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        assert target.startswith("../blob/main/"), target
        assert (ROOT / target.removeprefix("../blob/main/")).is_file(), target


def test_hooks_call_targets_of_the_makefile() -> None:
    """Each hook of pre-commit is local and calls a target that `make check` runs, too."""
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    checks = re.findall(r"(?m)^check: (.*?) *##", makefile)[0].split()
    (repository,) = configuration["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        program, target = hook["entry"].split()
        assert (program, hook["language"], hook["pass_filenames"]) == ("make", "system", False)
        assert target in checks
        assert re.search(rf"(?m)^{target}:.*\n\t\$\(BIN\)/{hook['name'].split(',')[0]}\b", makefile)


def test_the_template_of_pull_requests_names_checks_that_exist() -> None:
    """Each `make` target of the template is one of the Makefile."""
    template = (ROOT / ".github" / "pull_request_template.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"`make ([\w-]+)`", template)
    assert named
    assert [target for target in named if f"\n{target}:" not in makefile] == []
