"""From a file and overrides to a `Recipe`, or to every mistake with its file and line; and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from agentrl.core.errors import RecipeError
from agentrl.core.settings import Settings
from agentrl.recipe.band import without_stale_band
from agentrl.recipe.check import Purpose, find_problems
from agentrl.recipe.messages import Problem, problems_of
from agentrl.recipe.presets import described, with_preset
from agentrl.recipe.schema import EnvSettings, Recipe
from agentrl.recipe.source import Place, Source, find_recipe, read_source


class Loaded(NamedTuple):
    """A recipe, and where each of its settings came from."""

    recipe: Recipe
    source: Source


def load(path: str | Path, overrides: Sequence[str] = (), *, purpose: Purpose = "run") -> Recipe:
    """The recipe in `path` (a file, or the name of a shipped one) under `overrides`.

    `overrides` are `key.sub=value`, their values YAML. Paths inside a recipe are meant from the
    working directory. Raises RecipeError with one line for each mistake: `file:line: message`, or
    `file: override key=value: message` and `file: preset NAME (SOURCE): message`.
    """
    return load_with_source(path, overrides, purpose=purpose).recipe


def load_with_source(
    path: str | Path, overrides: Sequence[str] = (), *, purpose: Purpose = "run"
) -> Loaded:
    """As `load`, keeping where each setting came from."""
    source = read_source(find_recipe(path), overrides)
    _lay_under(source)
    try:
        # JSON in, so that strict types still take a list for a tuple.
        recipe = Recipe.model_validate_json(json.dumps(source.data), strict=True)
        problems = find_problems(recipe, purpose)
    except ValidationError as error:
        problems = problems_of(error, Recipe, source)
    if problems or source.problems:
        raise RecipeError("\n".join([*source.problems, *_lines(problems, source)]))
    return Loaded(without_stale_band(recipe, overrides), source)


def _lay_under(source: Source) -> None:
    """Put the settings of the recipe's preset under its own, each with where it comes from."""
    data, places = with_preset(source.data)
    source.data.update(data)
    for place in places:
        source.origins[place] = described(str(data["preset"]))


def _lines(problems: Sequence[Problem], source: Source) -> Iterator[str]:
    for place, message in sorted(problems, key=lambda one: source.line(one.place)):
        yield f"{source.where(place)}: {' '.join(message.splitlines())}"


def dump(recipe: Recipe) -> str:
    """YAML of every setting of `recipe`, defaults included; loads back equal."""
    data = _type_first(recipe.model_dump(mode="json"))
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def written(value: object) -> str:
    """A setting's value as it stands in YAML, on one line."""
    data = [_short(one) for one in value] if isinstance(value, tuple) else _short(value)
    text = yaml.safe_dump(data, default_flow_style=True, sort_keys=False, width=9999)
    return text.removesuffix("...\n").strip()


def _short(value: object) -> object:
    """Settings as the mapping that makes them."""
    if not isinstance(value, Settings):
        return value
    return {"type": _name(value)} | value.model_dump(mode="json", exclude_defaults=True)


def _type_first(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    keys = sorted(data, key=lambda key: key != "type")
    return {key: _type_first(data[key]) for key in keys}


class Difference(NamedTuple):
    """A setting that is not its default; `default` is None where it has none.

    An optional section that is there has the value `{}`, before its own differences.
    """

    place: Place
    value: Any
    default: Any


def differences(settings: Settings, place: Place = ()) -> Iterator[Difference]:
    """Settings in which `settings` differs from the defaults of its types, outermost first."""
    for key, field in type(settings).model_fields.items():
        here, value = (*place, key), getattr(settings, key)
        if isinstance(settings, EnvSettings) and key == "args":
            # As they stand in YAML: beside `id`.
            yield from (Difference((*place, name), arg, None) for name, arg in value.items())
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(value, Settings):
            if default is None and not field.is_required():
                yield Difference(here, {}, None)
            if default is None or type(value) is type(default):
                yield from differences(value, here)
                continue
            yield Difference((*here, "type"), getattr(value, "type", key), _name(default))
            yield from differences(value, here)
        elif value != default:
            yield Difference(here, value, default)


def _name(settings: Any) -> Any:
    return getattr(settings, "type", settings)
