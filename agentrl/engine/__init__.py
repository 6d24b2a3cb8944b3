"""Engines: what serves the policy (vLLM, transformers, any compatible server, a script)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.core.errors import EngineError
from agentrl.engine.settings import (
    AnyEngine,
    OpenAISettings,
    ScriptedSettings,
    TransformersSettings,
    VllmSettings,
)

if TYPE_CHECKING:
    from agentrl.engine.base import Engine
    from agentrl.engine.scripted import Script

__all__ = [
    "AnyEngine",
    "OpenAISettings",
    "ScriptedSettings",
    "TransformersSettings",
    "VllmSettings",
    "build",
]


def build(settings: AnyEngine, model: str, *, script: Script | None = None) -> Engine:
    """The engine of `settings` for the policy in folder or hub repository `model`; not started.

    `script` is what a `ScriptedSettings` names, looked up by the caller; `"random"` needs none.

    Raises:
        EngineError: a script is named and none was given.
    """
    match settings:
        case VllmSettings():
            from agentrl.engine.vllm import VllmEngine

            return VllmEngine(settings, model)
        case TransformersSettings():
            from agentrl.engine.transformers import TransformersEngine

            return TransformersEngine(settings, model)
        case OpenAISettings():
            from agentrl.engine.openai import OpenAIEngine

            return OpenAIEngine(settings, model)
        case ScriptedSettings():
            return _scripted(settings, model, script)
    raise EngineError(f"no engine is built from {type(settings).__name__}")


def _scripted(settings: ScriptedSettings, model: str, script: Script | None) -> Engine:
    from agentrl.engine.scripted import RandomEngine, ScriptedEngine, log_normal_latency
    from agentrl.engine.tokens import load_tokenizer

    latency = None
    if settings.latency > 0:
        latency = log_normal_latency(
            settings.latency,
            sigma=settings.latency_sigma,
            cap=settings.latency_cap,
            seed=settings.seed,
        )
    tokenizer = load_tokenizer(model)
    if settings.script == "random":
        return RandomEngine(len(tokenizer), seed=settings.seed, latency=latency)
    if script is None:
        raise EngineError(
            f"engine.script is {settings.script!r}, which names a script that was not given; "
            "'random' needs none"
        )
    return ScriptedEngine(script, tokenizer, latency=latency)
