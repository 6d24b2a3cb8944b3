"""The files that `agentrl env new` writes, and how they are filled in."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Literal, TypeAlias

from agentrl.core.errors import RecipeError

Kind: TypeAlias = Literal["tools", "messages"]

_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "warm.yaml": "warm.yaml.txt",
    "train.yaml": "recipe.yaml.txt",
    "{name}/__init__.py": "init.txt",
    "{name}/env.py": "env_{kind}.txt",
    "tests/test_{name}.py": "test.txt",
}


def write_package(folder: Path, *, name: str, kind: Kind) -> list[Path]:
    """Write a package with an environment of `kind`, its test and recipes to `folder`.

    Raises:
        RecipeError: `name` is no name for a package, or one of the files is there already.
    """
    if not name.isidentifier() or not name.islower() or keyword.iskeyword(name):
        raise RecipeError(
            f"{name!r} cannot name a Python package: use lower-case letters, digits and "
            "underscores, as in `agentrl env new word_game`"
        )
    filled = _filled(name, kind)
    for path in filled:
        if (folder / path).exists():
            raise RecipeError(f"{folder / path} exists already; nothing was written")
    written: list[Path] = []
    for path, text in filled.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        written.append(target)
    return written


def _filled(name: str, kind: Kind) -> Mapping[str, str]:
    class_name = "".join(part.capitalize() for part in name.split("_")) + "Env"
    templates = files(__name__)
    return {
        path.format(name=name): Template(
            templates.joinpath(template.format(kind=kind)).read_text(encoding="utf-8")
        ).substitute(name=name, class_name=class_name)
        for path, template in _FILES.items()
    }
