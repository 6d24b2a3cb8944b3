"""`docs/reference/` is made from the docstrings and signatures of the public modules.

`python tests/test_reference_pages.py --write` writes the pages anew.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import griffe
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"

PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "environments": (
        "What an environment is, the base class for environments of tools, and how they are found.",
        ("core.env", "core.tool", "core.tool_env", "core.wrappers", "core.registry"),
    ),
    "records": (
        "What a rollout leaves: turns, trees and groups, in memory and on disk.",
        ("core.types", "store"),
    ),
    "algorithms": (
        "Samplers, credit, filters and the loss: what a recipe chooses between.",
        (
            *("rollout.player", "samplers.chain", "samplers.arpo", "samplers.tree"),
            *("credit.table", "credit.groups", "credit.grpo", "credit.arpo", "credit.tree_grpo"),
            *("credit.steps", "credit.turn_grpo"),
            *("credit.aggregate", "filters.scores"),
            *("learner.kernels", "learner.loss_settings", "learner.settings"),
        ),
    ),
    "engines": ("What serves a policy.", ("engine.base", "engine.settings")),
    "evaluation": (
        "Suites, samples, results and their statistics.",
        (
            *("evals.suite", "evals.plan", "evals.samples", "evals.results", "evals.statistics"),
            "evals.scores",
        ),
    ),
    "testing": (
        "For tests of your own: the conformance kit, trees by hand, methods tried in seconds.",
        ("testing.conformance", "testing.trees", "testing.tiny_task", "trainer.rehearsal"),
    ),
    "errors": ("What is raised, and when.", ("core.errors",)),
}
"""Page -> what it is about, and its modules below `agentrl`."""


def page(name: str) -> str:
    """The Markdown of one page."""
    about, modules = PAGES[name]
    parts = [
        f"# Reference: {name}\n\n{about} Made from the code by `tests/test_reference_pages.py` "
        "(`--write`)."
    ]
    for module in modules:
        parts += _module(_load(module))
    return "\n\n".join(parts) + "\n"


@cache
def _package() -> griffe.Object | griffe.Alias:
    """The whole package: griffe reads all of it for whatever is asked, so it is asked once."""
    return griffe.load("agentrl", search_paths=[ROOT], allow_inspection=False)


def _load(name: str) -> griffe.Module:
    loaded = _package()[name]
    assert isinstance(loaded, griffe.Module)
    return loaded


def _module(module: griffe.Module) -> Iterator[str]:
    yield f"## {module.path}"
    yield _docstring(module)
    for member in _public(module):
        if member.is_class:
            yield from _class(member)
        elif member.is_function:
            yield f"### {member.name}"
            yield _signature(member)
            yield _docstring(member)
        elif member.is_attribute and member.docstring:
            yield f"### {member.name}"
            yield _docstring(member)


def _class(cls: griffe.Class) -> Iterator[str]:
    yield f"### {cls.name}"
    bases = ", ".join(map(str, cls.bases))
    fields = [_field(one) for one in _public(cls) if _is_field(one)]
    yield _block(f"class {cls.name}" + (f"({bases})" if bases else ""), *fields)
    yield _docstring(cls)
    for member in _public(cls):
        if member.is_function and member.docstring:
            yield f"#### {cls.name}.{member.name}"
            yield _signature(member)
            yield _docstring(member)
        elif member.is_attribute and member.docstring and not _is_field(member):
            yield f"#### {cls.name}.{member.name}"
            yield _docstring(member)


def _is_field(member: griffe.Object) -> bool:
    return member.is_attribute and member.annotation is not None and "property" not in member.labels


def _public(owner: griffe.Object) -> list[griffe.Object]:
    """Members that are the owner's own and have no leading underscore, as they stand."""
    return sorted(
        (
            one
            for name, one in owner.members.items()
            if not one.is_alias and not name.startswith("_") and not one.is_module
        ),
        key=lambda one: one.lineno or 0,
    )


def _field(member: griffe.Attribute) -> str:
    value = f" = {member.value}" if member.value is not None else ""
    return f"    {member.name}: {member.annotation}{value}"


def _signature(function: griffe.Function) -> str:
    kind = "async def" if "async" in function.labels else "def"
    written = f"{kind} {function.signature(return_type=True)}: ..."
    source = ast.unparse(ast.parse(written)).removesuffix("    ...").rstrip().removesuffix(":")
    return _block(_folded(source))


def _folded(line: str) -> str:
    """A long signature with each parameter on a line of its own."""
    if len(line) <= 96:
        return line
    tree = ast.parse(line + ": ...").body[0]
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    head, _, rest = line.partition("(")
    returns = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    inside = rest.removesuffix(returns).removesuffix(")")
    return f"{head}(\n    {_split(inside)},\n){returns}"


def _split(parameters: str) -> str:
    """Top-level commas become line ends."""
    depth, parts = 0, [""]
    for letter in parameters:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return ",\n    ".join(part.strip() for part in parts)


def _block(*lines: str) -> str:
    return "```text\n" + "\n".join(lines) + "\n```"


def _docstring(member: griffe.Object) -> str:
    return member.docstring.value.strip() if member.docstring else ""


def written(names: Sequence[str] = tuple(PAGES)) -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        (FOLDER / f"{name}.md").write_text(page(name))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_reference_says_what_the_code_says(name):
    found = (FOLDER / f"{name}.md").read_text()
    assert found == page(name), "run `python tests/test_reference_pages.py --write`"


def test_every_page_is_known():
    assert {path.stem for path in FOLDER.glob("*.md")} == set(PAGES)


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], __doc__
    written()
