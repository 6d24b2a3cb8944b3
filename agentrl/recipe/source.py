"""A recipe's YAML and overrides as plain data, with the place that each key came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from agentrl.core.errors import RecipeError, nearest

Place: TypeAlias = tuple[str, ...]
"""The keys that lead to a setting, as in ("train", "iterations")."""


@dataclass(frozen=True, slots=True)
class Source:
    """Plain data and, for each key in it, where it stands and the text that it was written as.

    `origins` are `file:line`, `preset NAME (SOURCE)` or `override key=value`; `problems` are those
    already found.
    """

    path: str
    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)
    written: dict[Place, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def origin(self, place: Place) -> str:
        """Where `place` is set, or else the nearest section around it, or else the file."""
        for end in range(len(place), 0, -1):
            if place[:end] in self.origins:
                return self.origins[place[:end]]
        return self.path

    def where(self, place: Place) -> str:
        """As `origin`, after the file where that is not in it: what a message begins with."""
        origin = self.origin(place)
        return origin if origin.startswith(self.path) else f"{self.path}: {origin}"

    def line(self, place: Place) -> int:
        """Line of `place`, for the order of messages; overrides come last."""
        number = self.origin(place).rpartition(":")[2]
        return int(number) if number.isdigit() else 1 << 30


def find_recipe(name: str | Path) -> Path:
    """The file `name`, or the recipe of that name which the package brings.

    Raises RecipeError when there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if path.stem in shipped and str(path.parent) in (".", "recipes"):
        return shipped[path.stem]
    raise RecipeError(
        f"no recipe {str(name)!r}: no such file from {Path.cwd()}, and none of the "
        f"shipped ones.{nearest(path.stem, shipped)} `agentrl recipe list` names these "
        f"{len(shipped)}."
    )


def shipped_recipes() -> dict[str, Path]:
    """The recipes that the package brings, by name in alphabetical order."""
    found = {
        item.name.removesuffix(".yaml"): Path(str(item))
        for item in files("agentrl.recipes").iterdir()
        if item.name.endswith(".yaml")
    }
    return dict(sorted(found.items()))


def read_source(path: str | Path, overrides: Sequence[str] = ()) -> Source:
    """The YAML of `path` with `overrides` (`key.sub=value`, the value as YAML) laid over it.

    Raises RecipeError on what is no YAML mapping; a key given twice is one of `problems`.
    """
    source = Source(str(path))
    try:
        text = Path(path).read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{path}:1: a recipe is a mapping of settings; this file holds none")
        source.data.update(_Reader(source).mapping(node, ()))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except RecursionError as error:
        raise RecipeError(f"{path}:1: an alias (*name) stands inside its own anchor") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    for override in overrides:
        try:
            lay_over(source, override)
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
    return source


class _Reader:
    """Turns YAML nodes into data, noting lines."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here, line = (*place, key), key_node.start_mark.line + 1
            if key in data:
                first = self._source.origins[here]
                self._source.problems.append(
                    f"{self._source.path}:{line}: {'.'.join(here)!r} is set twice; the first is "
                    f"{first}. Delete one."
                )
                continue
            self._source.origins[here] = f"{self._source.path}:{line}"
            data[key] = self.value(value_node, here)
        return data

    def value(self, node: yaml.Node, place: Place) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, str(i))) for i, item in enumerate(node.value)]
        self._source.written[place] = node.value
        return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    if node.tag in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:binary"):
        return node.value  # No setting is a date or bytes; as text it gets an ordinary message.
    return yaml.SafeLoader("").construct_object(node)


def lay_over(source: Source, override: str) -> None:
    """Put one override, `key.sub=value`, over what `source` holds.

    Raises RecipeError where it is no such thing, or leads into a value that has no settings.
    """
    key, equals, text = override.partition("=")
    place = tuple(key.strip().split("."))
    if not equals or not all(place):
        raise RecipeError(f"override {override!r}: expected key=value, as in train.iterations=20")
    label = f"override {override}"
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = None if node is None else _Reader(Source(label)).value(node, place)
    except yaml.YAMLError as error:
        raise RecipeError(f"{label}: the value is not valid YAML; quote it") from error
    section: Any = source.data
    for end, part in enumerate(place[:-1], start=1):
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise RecipeError(
                f"{label}: {'.'.join(place[:end])!r} is {section!r}, which has no settings inside"
            )
    section[place[-1]] = value
    for stale in [known for known in source.origins if known[: len(place)] == place]:
        del source.origins[stale]
    source.origins[place] = label
    source.written[place] = text.strip()
