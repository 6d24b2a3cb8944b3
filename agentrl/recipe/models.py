"""Names of models in recipes: built-in ones, folders and hub ids."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from agentrl.core.errors import RecipeError, nearest

BUILT_IN = {"tiny/search": "tiny_search"}
"""Models that the package brings, by name, and their folders under `agentrl/models/`."""


def resolve_model(name: str) -> str:
    """The folder of a built-in model or of a path, absolute; a hub id as it is.

    A path starts with `.`, `/` or `~`, or is an existing folder; relative ones are meant from the
    working directory. Raises RecipeError on a built-in name or a path that does not exist, and on
    a folder without `config.json`.
    """
    if name in BUILT_IN:
        return str(files("agentrl.models") / BUILT_IN[name])
    if name.startswith("tiny/"):
        raise RecipeError(
            f"no built-in model is named {name!r}.{nearest(name, BUILT_IN)} "
            f"Known: {', '.join(BUILT_IN)}"
        )
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            policy = folder / "policy"
            inside = (policy / "config.json").is_file()
            hint = f"; this run's policy is {str(policy)!r}" if inside else ""
            raise RecipeError(f"folder {name!r} holds no model (it has no config.json){hint}")
        return str(folder.resolve())
    if name.startswith((".", "/", "~")):
        raise RecipeError(f"no folder {name!r} (from {Path.cwd()}) holds a model")
    return name
