"""`agentrl recipe`: what a recipe says, whether it can work, and what it may say."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from agentrl.core.errors import RecipeError
from agentrl.recipe.check import Purpose
from agentrl.recipe.keys import find_sections
from agentrl.recipe.load import differences, dump, load, load_with_source, written
from agentrl.recipe.presets import PRESETS
from agentrl.recipe.source import find_recipe, read_source, shipped_recipes

app = typer.Typer(help="Show and check recipes.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the shipped recipes, each with the first line that its file says about it."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    recipes = shipped_recipes()
    width = max(map(len, recipes), default=0)
    for name, path in recipes.items():
        about = path.read_text().partition("\n")[0].lstrip("# ")
        console.print(f"{name:{width}}  {about}")


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, as in train.iterations=20.")
    ] = None,
) -> None:
    """Show every setting of a recipe, then those that differ from the defaults, and why."""
    loaded = load_with_source(recipe, overrides or (), purpose=_purpose(recipe))
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(dump(loaded.recipe))
    console.print("# differs from the defaults:")
    for place, value, default in differences(loaded.recipe):
        was = "" if default is None else f" (default {written(default)})"
        origin = loaded.source.origin(place)
        console.print(f"#   {'.'.join(place)} = {written(value)}{was}, {origin}")


@app.command()
def check(
    recipes: Annotated[list[str], typer.Argument(help="Recipe files, or names of shipped ones.")],
) -> None:
    """Check recipes without starting anything; exit code 2 where one cannot work."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    mistakes = []
    for recipe in recipes:
        try:
            load(recipe, purpose=_purpose(recipe))
        except RecipeError as error:
            mistakes.append(str(error))
        else:
            console.print(f"{recipe}: ok")
    if mistakes:
        raise RecipeError("\n".join(mistakes))


@app.command()
def presets() -> None:
    """List the published algorithms that a recipe can name as its `preset`."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    width = max(map(len, PRESETS))
    for name, preset in sorted(PRESETS.items()):
        console.print(f"{name:{width}}  {preset.about} ({preset.source})")


@app.command()
def keys(
    section: Annotated[
        str, typer.Argument(help="A section or a key, as in sampler or train.iterations.")
    ] = "",
) -> None:
    """List what a recipe may say: every key, what it takes, its default and what it does."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for found in find_sections(section):
        if found.keys:
            console.print(found.title)
        for key in found.keys:
            default = f"default {key.default}" if key.default else "must be given"
            console.print(f"  {key.name}  {key.takes}, {default}\n    {key.about}")


def _purpose(recipe: str) -> Purpose:
    """What a recipe is for, by what it says: imitation, evaluation alone, or training."""
    data = read_source(find_recipe(recipe)).data
    engine = data.get("engine")
    if data.get("sft") is not None:
        return "sft"
    only_asked = isinstance(engine, dict) and engine.get("type") in ("chat", "openai", "scripted")
    return "eval" if only_asked else "run"
