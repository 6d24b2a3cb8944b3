"""Engines: what serves the policy (vLLM, transformers, any compatible server, a script)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentrl.core.errors import EngineError
from agentrl.engine.settings import (
    AnyEngine,
    ChatSettings,
    OpenAISettings,
    ScriptedSettings,
    TransformersSettings,
    VllmSettings,
)

if TYPE_CHECKING:
    from agentrl.engine.base import Engine
    from agentrl.engine.scripted import Script
    from agentrl.rollout.transcript import Transcript

__all__ = [
    "AnyEngine",
    "ChatSettings",
    "OpenAISettings",
    "ScriptedSettings",
    "TransformersSettings",
    "VllmSettings",
    "build",
]


def build(
    settings: AnyEngine,
    model: str,
    *,
    script: Script | None = None,
    transcript: Transcript | None = None,
) -> Engine:
    """The engine of `settings` for the policy in folder or hub repository `model`; not started.

    `script` is what a `ScriptedSettings` names, looked up by the caller; `"random"` needs none.
    `transcript` is what a policy without a tokenizer reads and writes: a chat server, or a script
    without a model. By default it is one of their own, which knows no images of others.

    Raises:
        EngineError: a script is named and none was given, or a model is needed and none was named.
    """
    if not model and not speaks_text(settings, model):
        raise EngineError(f"engine.type {settings.type!r} needs a model, and none is named")
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
        case ChatSettings():
            from agentrl.engine.chat import ChatEngine

            return ChatEngine(settings, model, transcript=transcript)
        case ScriptedSettings():
            return _scripted(settings, model, script, transcript)
    raise EngineError(f"no engine is built from {type(settings).__name__}")


def speaks_text(settings: AnyEngine, model: str) -> bool:
    """True for a policy that reads and writes a `Transcript`, since it has no tokenizer.

    That is a chat server's whatever it is called, and a script's where no model is named.
    """
    if isinstance(settings, ScriptedSettings):
        return not model and settings.script != "random"
    return isinstance(settings, ChatSettings)


def _scripted(
    settings: ScriptedSettings, model: str, script: Script | None, transcript: Transcript | None
) -> Engine:
    from agentrl.engine.scripted import (
        RandomEngine,
        ScriptedEngine,
        TranscriptScript,
        log_normal_latency,
    )
    from agentrl.engine.tokens import load_tokenizer

    latency = None
    if settings.latency > 0:
        latency = log_normal_latency(
            settings.latency,
            sigma=settings.latency_sigma,
            cap=settings.latency_cap,
            seed=settings.seed,
        )
    if settings.script == "random":
        return RandomEngine(len(load_tokenizer(model)), seed=settings.seed, latency=latency)
    if script is None:
        raise EngineError(
            f"engine.script is {settings.script!r}, which names a script that was not given; "
            "'random' needs none"
        )
    if not model:
        return TranscriptScript(script, transcript, latency=latency)
    return ScriptedEngine(script, load_tokenizer(model), latency=latency)
