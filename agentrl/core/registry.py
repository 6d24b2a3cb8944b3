"""Environments by id: the built-in ones, those of other packages, and any class by its path.

Another package offers its own through an entry point of the group `agentrl.envs`, whose object is
a table of ids like `agentrl.envs.ENVS`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from agentrl.core.env import Env
from agentrl.core.errors import AgentRLError, RecipeError, RegistryError, nearest
from agentrl.core.wrappers import WRAPPERS, Wrapper

GROUP = "agentrl.envs"
"""Entry point group of third-party tables."""

_SCHEMES = {
    "gym": "agentrl.gym:FromGymnasium",
    "isolated": "agentrl.adapters.isolated:IsolatedEnv",
    "openenv": "agentrl.adapters.openenv:OpenEnv",
    "remote": "agentrl.adapters.remote:ServedEnv",
    "verifiers": "agentrl.adapters.verifiers:VerifiersEnv",
}


class EnvEntry(NamedTuple):
    """An offered environment: where its class is and which package offers it, if any."""

    id: str
    path: str
    package: str


class BrokenPlugin(NamedTuple):
    """A package whose table could not be read."""

    package: str
    entry_point: str
    error: str


class EnvTable(NamedTuple):
    """Everything installed; an id that several packages offer has several entries."""

    entries: Mapping[str, tuple[EnvEntry, ...]]
    broken: tuple[BrokenPlugin, ...]


@functools.cache
def env_table() -> EnvTable:
    """All tables, read once in a process; imports the tables' modules but no environment."""
    # By name and late: built-ins are found in a bare checkout too, where no metadata is.
    builtin: Mapping[str, str] = importlib.import_module("agentrl.envs").ENVS
    found: dict[str, tuple[EnvEntry, ...]] = {
        id_: (EnvEntry(id_, path, "agentrl"),) for id_, path in builtin.items()
    }
    broken: list[BrokenPlugin] = []
    for point in sorted(entry_points(group=GROUP), key=lambda one: (one.name, one.value)):
        package = point.dist.name if point.dist else point.name
        try:
            table = _table(point)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            broken.append(BrokenPlugin(package, f"{point.name} = {point.value!r}", said))
            continue
        for id_, path in table.items():
            found[id_] = (*found.get(id_, ()), EnvEntry(id_, path, package))
    return EnvTable(found, tuple(broken))


def _table(point: EntryPoint) -> Mapping[str, str]:
    table = point.load()
    if not isinstance(table, Mapping) or not all(
        isinstance(part, str) for pair in table.items() for part in pair
    ):
        raise RegistryError(
            f"{point.value} must be a table of ids to 'module:Class' strings, got {table!r}"
        )
    return table


def env_ids() -> list[str]:
    """Ids of all installed environments, sorted."""
    return sorted(env_table().entries)


def env_class(id: str) -> type[Env]:
    """The class of `id`: a registered id, `"module:Class"`, or `"gym:<Gymnasium id>"`.

    Raises:
        RegistryError: unknown id, two packages that offer it, or a class that cannot be imported.
    """
    scheme, colon, _ = id.partition(":")
    if scheme in _SCHEMES and colon:
        return _load(EnvEntry(id, _SCHEMES[scheme], "agentrl"))
    if colon:
        return _load(EnvEntry(id, id, ""))
    table = env_table()
    offers = table.entries.get(id, ())
    if len(offers) > 1:
        packages = " and ".join(f"{one.package} ({one.path})" for one in offers)
        raise RegistryError(
            f"environment {id!r} is offered by {packages}: uninstall one, or name the class "
            f"itself, as in {offers[0].path!r}"
        )
    if not offers:
        raise RegistryError(_unknown(id, table))
    return _load(offers[0])


def _unknown(id: str, table: EnvTable) -> str:
    said = (
        f"no environment is named {id!r}.{nearest(id, table.entries)} "
        f"`agentrl env list` shows the {len(table.entries)} installed ones."
    )
    for one in table.broken:
        said += (
            f" The environments of package {one.package} ({one.entry_point}) could not be "
            f"read: {one.error}."
        )
    return said


def _load(entry: EnvEntry) -> type[Env]:
    where = f"environment {entry.id!r}" + (f" of {entry.package}" if entry.package else "")
    module_name, colon, class_name = entry.path.partition(":")
    if not colon or not module_name or not class_name:
        raise RegistryError(f"{where}: {entry.path!r} is not of the form 'module:Class'")
    origin = "" if entry.path == entry.id else f" from {entry.path!r}"
    cannot = f"{where} cannot be imported{origin}"
    found = load_named(entry.path, where=where, cannot=cannot, error=RegistryError)
    if not (isinstance(found, type) and issubclass(found, Env)):
        raise RegistryError(f"{where}: {entry.path!r} is no subclass of agentrl.core.env.Env")
    return found


def load_named(path: str, *, where: str, cannot: str, error: type[AgentRLError]) -> object:
    """What `module:name` names.

    Raises:
        AgentRLError: `error`, which begins with `where`, or with `cannot` if the import fails;
            what the module itself raises of ours goes through.
    """
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except AgentRLError:
        raise
    except Exception as failure:  # a module of the user's raises what it likes
        raise error(f"{cannot}: {type(failure).__name__}: {failure}") from failure
    found = getattr(module, name, None)
    if found is None:
        raise error(
            f"{where}: module {module_name!r} has no {name!r}.{nearest(name, vars(module))}"
        )
    return found


def make_env(id: str, **settings: Any) -> Env:
    """An environment, its `settings` checked against the constructor (see `env_class`).

    Raises:
        RegistryError: as `env_class`.
        RecipeError: an unknown, missing or ill-typed setting.
    """
    return build_env(id, env_class(id), settings)


def build_env(id: str, cls: type[Env], settings: Mapping[str, Any]) -> Env:
    """An environment of `cls`, which is that of `id`, in the wrappers that its settings name.

    `wrappers` is a list of mappings, each with the `type` of a wrapper (`WRAPPERS`) and its
    settings; the first one stands next to the environment.

    Raises:
        RecipeError: an unknown, missing or ill-typed setting of the environment or of a wrapper.
    """
    scheme, colon, rest = id.partition(":")
    if scheme in _SCHEMES and colon:
        settings = {"id": rest, **settings}
    own = {key: value for key, value in settings.items() if key != "wrappers"}
    env = cls(**check_settings(id, cls, own))
    for number, wrapper in enumerate(_wrappers(id, settings.get("wrappers", ()))):
        where = f"env {id!r}: wrappers[{number}]"
        wrapper_class, given = _wrapper_class(where, wrapper)
        env = wrapper_class(env, **_checked(where, _wrapper_settings(wrapper_class), given))
    return env


def _wrappers(id: str, value: object) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, Mapping) for one in value):
        raise RecipeError(
            f"env {id!r}: wrappers: a list of mappings with a `type`, as in "
            f"[{{type: turn_limit, max_turns: 4}}], got {value!r}."
        )
    return value


def _wrapper_class(where: str, given: Mapping[str, Any]) -> tuple[type[Wrapper], dict[str, Any]]:
    settings = dict(given)
    name = settings.pop("type", None)
    if name not in WRAPPERS:
        raise RecipeError(
            f"{where}: no wrapper has the type {name!r}.{nearest(str(name), WRAPPERS)} "
            f"Known: {', '.join(WRAPPERS)}."
        )
    module, _, class_name = WRAPPERS[str(name)].partition(":")
    return getattr(importlib.import_module(module), class_name), settings


def _wrapper_settings(cls: type[Wrapper]) -> Mapping[str, inspect.Parameter]:
    return {key: one for key, one in env_settings(cls).items() if key not in ("env", "wrappers")}


@functools.cache
def env_settings(cls: type[Env]) -> Mapping[str, inspect.Parameter]:
    """The constructor's keyword parameters, those of base classes behind `**kwargs` included."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        constructor = vars(base)["__init__"]
        own = list(inspect.signature(constructor).parameters.values())[1:]
        try:
            hints = get_type_hints(constructor, include_extras=True)
        except NameError:
            hints = {}
        for one in own:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                hint = hints.get(one.name, one.empty)
                found.setdefault(one.name, one.replace(annotation=hint))
        if not any(one.kind is one.VAR_KEYWORD for one in own):
            break
    return found


def check_settings(id: str, cls: type[Env], settings: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` converted to the types of `cls`'s constructor.

    Raises:
        RecipeError: an unknown setting (with the nearest one), a missing or an ill-typed one.
    """
    return _checked(f"env {id!r}", env_settings(cls), settings)


def _checked(
    where: str, known: Mapping[str, inspect.Parameter], settings: Mapping[str, Any]
) -> dict[str, Any]:
    listed = ", ".join(known) or "none"
    checked: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in known:
            raise RecipeError(
                f"{where} has no setting {key!r}.{nearest(key, known)} Known here: {listed}."
            )
        checked[key] = _converted(f"{where}: {key}", known[key].annotation, value)
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in checked:
            raise RecipeError(f"{where} needs the setting {key!r}. Known here: {listed}.")
    return checked


def _converted(where: str, hint: Any, value: object) -> object:
    if hint is inspect.Parameter.empty:
        return value
    adapter = _adapter(hint)
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = first["msg"][0].lower() + first["msg"][1:]
        raise RecipeError(f"{where}: {said}, got {first['input']!r}.") from error


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    """None for a type that is no plain data (an object that a test gives): nothing to check."""
    try:
        hash(hint)
    except TypeError:
        build = _cached_adapter.__wrapped__
    else:
        build = _cached_adapter
    try:
        return build(hint)
    except PydanticSchemaGenerationError:
        return None


@functools.lru_cache(maxsize=256)
def _cached_adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)
