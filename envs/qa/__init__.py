"""Questions that are answered closed book: from what the policy knows, in one turn."""

from .env import QuestionEnv

__all__ = ["QuestionEnv"]
