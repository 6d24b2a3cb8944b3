"""Every Python block of the README and of the pages runs, in order, as one program each."""

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
