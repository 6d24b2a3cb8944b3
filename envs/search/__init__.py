"""Search environments: questions whose answers stand in a corpus that the policy can search."""

from .env import CorpusSearchEnv, FactsSearchEnv, SearchEnv
from .web import WebSearchEnv

__all__ = ["CorpusSearchEnv", "FactsSearchEnv", "SearchEnv", "WebSearchEnv"]
