"""What a user calls a policy, turned into the engine that serves it and the model it loads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentrl.core.errors import CheckpointError, RecipeError, SetupError, nearest
from agentrl.engine.settings import (
    AnyEngine,
    ChatSettings,
    OpenAISettings,
    ScriptedSettings,
    TransformersSettings,
    VllmSettings,
)
from agentrl.recipe.models import resolve_model

if TYPE_CHECKING:
    import httpx

_SCRIPTS = ("oracle", "spoiled_oracle")
_LISTED = 10


class Policy(NamedTuple):
    """The engine that serves a policy, and its folder or hub id: empty where it speaks text."""

    engine: AnyEngine
    model: str


def policy_of(
    named: str,
    *,
    model: str = "",
    tokenizer: str = "",
    engine: str = "",
    transport: httpx.BaseTransport | None = None,
) -> Policy:
    """The policy that a user named.

    `named` is a run's or a policy's folder, a hub id or a built-in name, loaded by `engine` "vllm"
    (the default) or "transformers"; the address of a server (`https://host/v1`), asked for chats,
    or for completions of exact tokens where `tokenizer` is a folder or hub id; or `scripted:NAME`.
    `model` is a server's name for it, by default the only one that it serves. A server is asked
    once which models it has.

    Raises:
        RecipeError: what is named does not exist or does not go together.
        CheckpointError: a folder without a policy.
        SetupError: no server answers, or not as one.
    """
    if named.startswith("scripted:"):
        return _script(named, model=model, tokenizer=tokenizer, engine=engine)
    if named.startswith(("http://", "https://")):
        for page in ("/chat/completions", "/completions", "/models"):
            if named.rstrip("/").endswith(page):
                base = named.rstrip("/").removesuffix(page)
                raise RecipeError(f"policy {named!r} is a page of a server: name it {base!r}")
        name = _served(named, model, transport)
        return _server(named, name, tokenizer=tokenizer, engine=engine)
    if "://" in named:
        raise RecipeError(f"policy {named!r}: a server's address starts with http:// or https://")
    for option, value in (("--model", model), ("--tokenizer", tokenizer)):
        if value:
            raise RecipeError(
                f"{option} {value} is for servers; policy {named!r} is a folder or hub id and "
                "brings its own"
            )
    engines = {"": VllmSettings, "vllm": VllmSettings, "transformers": TransformersSettings}
    if engine not in engines:
        raise RecipeError(
            f"--engine {engine!r} cannot load policy {named!r}.{nearest(engine, engines)} "
            "Known: vllm, transformers"
        )
    return Policy(engines[engine](), resolve_model(find_policy(named)))


def find_policy(name: str) -> str:
    """The policy in run folder `name`, or `name` itself (a policy's folder or a hub id).

    Raises:
        CheckpointError: a folder that holds no policy in the layout of the model hubs.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name
    for candidate in (folder, folder / "policy"):
        if (candidate / "config.json").is_file():
            return str(candidate)
    raise CheckpointError(
        f"{folder}: holds no policy (no config.json, nor a folder policy/ with one). A finished "
        "run has its policy in policy/; a checkpoint holds the state of training instead"
    )


def _script(named: str, *, model: str, tokenizer: str, engine: str) -> Policy:
    script = named.removeprefix("scripted:")
    if script not in _SCRIPTS:
        raise RecipeError(
            f"no script is named {script!r}.{nearest(script, _SCRIPTS)} "
            f"Known: {', '.join(f'scripted:{one}' for one in _SCRIPTS)}"
        )
    for option, value in (("--model", model), ("--tokenizer", tokenizer), ("--engine", engine)):
        if value and (option, value) != ("--engine", "scripted"):
            raise RecipeError(f"{option} {value} is not for {named!r}: a script needs no model")
    return Policy(ScriptedSettings(script=script), "")


def _server(url: str, name: str, *, tokenizer: str, engine: str) -> Policy:
    wanted = engine or ("openai" if tokenizer else "chat")
    if wanted not in ("chat", "openai"):
        raise RecipeError(
            f"--engine {engine!r} is not for a server.{nearest(engine, ('chat', 'openai'))} "
            "Known: chat, openai (exact completions, with --tokenizer)"
        )
    if wanted == "openai":
        if not tokenizer:
            raise RecipeError(
                "--engine openai sends token ids: --tokenizer must name the folder or hub id "
                "whose tokenizer the served model has"
            )
        return Policy(OpenAISettings(base_url=url, model=name), resolve_model(tokenizer))
    if tokenizer:
        raise RecipeError("--engine chat sends messages: leave --tokenizer out")
    return Policy(ChatSettings(base_url=url, model=name), "")


def _served(url: str, model: str, transport: httpx.BaseTransport | None) -> str:
    """The name of the model to ask `url` for."""
    listed = _models(url, model, transport)
    if listed is None or (model and model in listed):
        return model
    shown = ", ".join(sorted(listed)[:_LISTED])
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    if model:
        raise RecipeError(
            f"{url} serves no model {model!r}.{nearest(model, listed)} It serves: "
            f"{shown or 'none'}{more}"
        )
    if len(listed) != 1:
        raise RecipeError(
            f"{url} serves {len(listed)} models: name one with --model ({shown or 'none'}{more})"
        )
    return listed[0]


def _models(url: str, model: str, transport: httpx.BaseTransport | None) -> Sequence[str] | None:
    """What `url` serves, or None where it does not say and `model` is named."""
    import httpx

    from agentrl.engine.http import listed_models

    setting = ChatSettings.model_fields["api_key_env"].default
    key = os.environ.get(setting)
    base = url.rstrip("/")
    try:
        listed = listed_models(base, key=key, transport=transport)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if model and status in (401, 403):
            return None  # The key may stand in another variable (engine.api_key_env).
        state = "is set" if key else "is not set"
        raise SetupError(
            f"{base}/models answered HTTP {status}: {error.response.text[:200]!r} (the key is read "
            f"from {setting}, which {state}; with --model, engine.api_key_env=NAME names another)"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SetupError(
            f"no server answers at {url} ({type(error).__name__}: {error}); is it started, and is "
            "the address right?"
        ) from error
    except ValueError as error:
        raise SetupError(f"{base}/models answered no list of models: {error}") from error
    if listed is not None:
        return listed
    if not base.endswith("/v1") and _answers(f"{base}/v1", key, transport):
        raise RecipeError(f"{url} has no /models, {base}/v1 has: name the policy {base}/v1")
    if not model:
        raise RecipeError(f"{url} does not say which models it serves: name one with --model")
    return None


def _answers(base: str, key: str | None, transport: httpx.BaseTransport | None) -> bool:
    import httpx

    from agentrl.engine.http import listed_models

    try:
        return listed_models(base, key=key, transport=transport) is not None
    except (httpx.HTTPError, ValueError):
        return False
