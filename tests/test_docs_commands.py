"""The other blocks of the README and the pages: commands run, recipes load, data can be read.

A block of commands is run as it stands, in an empty folder with the page's files: what stands
after `<!-- file: NAME -->` is saved under that name. After `<!-- read only: REASON -->` the
commands are not run, but their options are parsed by the program that they call, and the recipe
that they name is loaded with the settings that they give.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.core.errors import RecipeError
from agentrl.recipe.check import Purpose
from agentrl.recipe.load import load

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>file|read only): (?P<said>[^\n]+) -->\n)?"
    r"^```(?P<language>\w+)\n(?P<body>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
KNOWN = {"bash", "console", "json", "python", "text", "toml", "yaml"}
OTHERS = {
    "cd",
    "pip",
    "pytest",
    "ray",
    "sudo",
    "export",
    "vllm",
    "docker",
    "uvx",
    "curl",
    "xdg-open",
}
"""Programs of others, whose options we cannot check without running them."""


class Block(NamedTuple):
    """A fenced block of a page, and what is said above it."""

    page: Path
    number: int
    language: str
    body: str
    mark: str
    said: str

    @property
    def commands(self) -> list[list[str]]:
        """Words of each command."""
        lines = self.body.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        split = (shlex.split(line, comments=True) for line in lines)
        return [words for words in split if words]


def blocks(page: Path) -> list[Block]:
    found = enumerate(BLOCK.finditer(page.read_text()), start=1)
    return [
        Block(page, n, m["language"], m["body"], m["mark"] or "", m["said"] or "") for n, m in found
    ]


EVERYTHING = [block for page in PAGES for block in blocks(page)]
COMMANDS = [one for one in EVERYTHING if one.language in ("bash", "console")]
RUN = [one for one in COMMANDS if one.mark != "read only"]
RECIPES = [one for one in EVERYTHING if one.language == "yaml"]


def title(block: Block) -> str:
    return f"{block.page.stem}-{block.number}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the reader of a page stands, with the files that the page had them save."""

    def made(page: Path) -> Path:
        for block in blocks(page):
            if block.mark == "file":
                (tmp_path / block.said).write_text(block.body)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    yield made
    for name in [name for name, one in sys.modules.items() if _is_in(one, tmp_path)]:
        del sys.modules[name]


def _is_in(module: object, folder: Path) -> bool:
    return str(getattr(module, "__file__", None) or "").startswith(str(folder))


def test_every_block_has_a_language_that_is_checked():
    assert {block.language for block in EVERYTHING} <= KNOWN
    assert len(RUN) >= 3 and len(COMMANDS) > len(RUN)


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=title)
def test_the_commands_of_a_block_run(block, folder):
    here = folder(block.page)
    if block.page.name == "README.md" or any(words[0] != "agentrl" for words in block.commands):
        _run_by_the_shell(block.commands, here)
        return
    # As the program would, without a start of Python and its imports for each.
    for words in block.commands:
        done = CliRunner().invoke(app, words[1:], input="")
        assert done.exit_code == 0, f"{words}: {done.exception!r}\n{done.output}"


def _run_by_the_shell(commands: list[list[str]], here: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(map(shlex.join, commands))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=here,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("block", COMMANDS, ids=title)
def test_the_commands_of_a_block_can_be_given(block, folder):
    folder(block.page)
    for words in block.commands:
        while words and re.fullmatch(r"\w+=\S*", words[0]):  # VARIABLE=value before the command
            words = words[1:]
        if words:
            _check(words)


def _check(words: list[str]) -> None:
    program = Path(words[0]).name
    if program == "agentrl":
        context = _parsed(words[1:])
        if context.command.name in ("run", "sft"):
            purpose = context.command.name
            _loads(context.params["recipe"], context.params["overrides"] or [], purpose)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
    elif words[:2] == ["python", "-m"]:
        assert words[2] in ("venv", "pip", "http.server"), words
    elif program in ("python", "python3"):
        script = ROOT / words[1]
        assert script.is_file(), f"{words[1]} is not there"
        source = script.read_text()
        options = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
        assert [one for one in options if f'"{one}"' not in source and one != "--write"] == []
    elif words[0].startswith(".ci/"):
        assert (ROOT / words[0]).is_file()
    else:
        assert program in OTHERS, f"nobody knows {program}"
    if program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        named = re.findall(r"agentrl\[([\w,]+)\]", " ".join(words))
        wanted = {one for group in named for one in group.split(",")}
        assert wanted <= extras["optional-dependencies"].keys()


def _parsed(words: list[str]):
    """The context of the command that `words` call; a wrong option or name raises."""
    command, name, parent = get_command(app), "agentrl", None
    while True:
        context = command.make_context(name, list(words), parent=parent)
        if not hasattr(command, "resolve_command"):
            return context
        rest = [*context._protected_args, *context.args]
        if not rest:
            return context
        name, command, words = command.resolve_command(context, rest)
        parent = context


def _loads(recipe: str, overrides: list[str], purpose: Purpose = "run") -> None:
    """`recipe` loads where it is there: shipped, or a file of the page."""
    if recipe.isidentifier() or Path(recipe).is_file():
        try:
            load(recipe, overrides, purpose=purpose)
        except RecipeError as error:
            # A folder that an earlier command of the page would have made.
            if "no such folder" not in str(error):
                raise


@pytest.mark.parametrize("block", RECIPES, ids=title)
def test_a_recipe_of_a_page_loads_or_its_sections_do(block, folder, tmp_path):
    folder(block.page)
    given = yaml.safe_load(block.body)
    assert isinstance(given, dict) and given
    if "name" not in given:
        base = {"name": "page", "policy": {"model": "tiny/search"}, "env": {"id": "demo/guess"}}
        given = base | given
    path = tmp_path / "page.yaml"
    path.write_text(yaml.safe_dump(given))
    load(str(path))


@pytest.mark.parametrize(
    "block", [one for one in EVERYTHING if one.language in ("json", "toml")], ids=title
)
def test_data_of_a_page_can_be_read(block):
    if block.language == "toml":
        assert tomllib.loads(block.body)
    else:
        read, rest = json.JSONDecoder(), block.body.strip()
        while rest:  # one object, or one on each line
            rest = rest[read.raw_decode(rest)[1] :].strip()


def test_a_wrong_option_would_be_found():
    with pytest.raises(Exception, match="No such option"):
        _parsed(["run", "arpo_search", "--dry-rum"])
    with pytest.raises(RecipeError):
        _loads("arpo_search", ["train.iteration=3"])
    assert shutil.which("bash")
