"""Every error that agentrl raises on purpose, one base, each also the standard error it replaces.

A message says what is wrong, where, what was found and what to do. `RecipeError`, `SetupError`,
`DataError` and `CheckpointError` are for the user: the command line prints them without a
traceback and exits with 2. All are picklable (one positional message), since they cross Ray.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AgentRLError(Exception):
    """Base of all errors raised on purpose."""


class RecipeError(AgentRLError, ValueError):
    """A recipe that cannot work; found before anything starts."""


class SetupError(AgentRLError, RuntimeError):
    """Something that the user's machine lacks; names the command that gets it."""


class DataError(AgentRLError, ValueError):
    """A malformed corpus, question file or trajectory file; names `path:line`."""


class CheckpointError(AgentRLError, RuntimeError):
    """A checkpoint that is missing, cut in the middle or of another recipe."""


class RegistryError(AgentRLError, LookupError):
    """An id that nobody registered, or that two packages registered."""


class EnvError(AgentRLError, RuntimeError):
    """An environment failed: crashed, hung past its deadline or broke its contract."""


class EngineError(AgentRLError, RuntimeError):
    """An engine failed: died, refused a request or timed out."""


class ContextLengthError(EngineError):
    """The policy's context is full: the end of an episode by its tokens, and no failure."""


class LearnerError(AgentRLError, RuntimeError):
    """A learner failed: a rank died, or its numbers are not finite. Load a checkpoint to go on."""


class ToolError(AgentRLError, RuntimeError):
    """A tool refused a call; the message is shown to the policy as the observation."""


class ContractError(AgentRLError, AssertionError):
    """An invariant of the records does not hold: a mistake of ours or of an extension."""


class WeightSyncError(AgentRLError, RuntimeError):
    """The engine's log-probabilities are not those of the weights that it should hold."""


class FailureRateError(AgentRLError, RuntimeError):
    """Too many episodes ended in infrastructure failures for the run to mean anything."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the closest of `known`, or `""` when none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""
