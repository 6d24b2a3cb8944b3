"""How an error ends a command: one line without a traceback where it is told on purpose."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from agentrl.core.errors import (
    AgentRLError,
    CheckpointError,
    DataError,
    RecipeError,
    RegistryError,
    SetupError,
)

USER_ERRORS = (RecipeError, SetupError, DataError, CheckpointError, RegistryError)
"""What the user can mend: exit code 2. Other errors raised on purpose exit with 1."""

_STACK = frozenset(
    {"torch", "ray", "vllm", "deepspeed", "transformers", "safetensors", "peft", "tensorboard"}
)


class Commands(TyperGroup):
    """A group whose commands end with a message and an exit code instead of a traceback.

    Errors raised on purpose are printed as they are; an error that nobody foresaw keeps its
    traceback. Ctrl-C ends with 130.
    """

    def invoke(self, ctx: Any) -> Any:  # Typer's context class differs between its versions.
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _say("stopped")
            raise typer.Exit(130) from None
        except Exception as error:
            told = told_error(error)
            if told is None:
                raise
            _say(str(told))
            code = 2 if isinstance(told, USER_ERRORS) else 1
            raise typer.Exit(code) from error


def told_error(error: Exception) -> AgentRLError | None:
    """The error to print for `error`, or None where it was not raised on purpose.

    Of a group (tasks that ran side by side) it is the first, if all were raised on purpose. A
    missing package of the training stack becomes a SetupError that says how to get it.
    """
    if isinstance(error, AgentRLError):
        return error
    if isinstance(error, ExceptionGroup):
        told = [told_error(one) for one in error.exceptions]
        return told[0] if all(told) else None
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in _STACK:
            return SetupError(
                f"{package} is not installed; `agentrl doctor` says what is missing and how to "
                "get it"
            )
    return None


def _say(message: str) -> None:
    Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
