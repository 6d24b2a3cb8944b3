"""agentrl: branching, multi-turn reinforcement learning of language-model agents."""

from pathlib import Path

_here = Path(__file__).resolve().parent
if not (_here / "envs").is_dir():
    # Source checkout: envs/, tools/ and recipes/ sit beside this package, not inside it.
    __path__.append(str(_here.parent))

__version__ = "0.1.0"
