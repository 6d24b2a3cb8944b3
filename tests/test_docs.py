"""The README and the pages: their Python blocks run, and what they link to is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES_WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text())]
FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)|(?:src|href|srcset)=\"([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, tmp_path):
    program = "\n".join(BLOCK.findall(page.read_text()))
    script = tmp_path / "page.py"
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stderr}"


def test_the_first_environment_is_shown_and_has_under_thirty_lines():
    page = (ROOT / "docs" / "first_environment.md").read_text()
    block = BLOCK.search(page)[1]
    assert len(block.strip().splitlines()) < 30
    bases = [ast.unparse(one.bases[0]) for one in ast.parse(block).body if hasattr(one, "bases")]
    assert bases == ["ToolEnv"]


def anchors(page):
    """The names under which GitHub links to the headings of a page."""
    words = (re.sub(r"[^\w\- ]", "", one.lower()) for one in HEADING.findall(without_code(page)))
    return {one.strip().replace(" ", "-") for one in words}


def without_code(page):
    return FENCED.sub("", page.read_text())


def links(page):
    text = CODE.sub("", without_code(page))
    found = ("".join(groups) for groups in LINK.findall(text))
    return [one for one in found if not re.match(r"[a-z]+:", one)]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_links_are_found_at_all():
    assert sum(len(links(page)) for page in LINKING) > 30
    assert "commands" in anchors(ROOT / "CONTRIBUTING.md")
