"""Engines: what serves the policy (vLLM, transformers, any compatible server, a script)."""
