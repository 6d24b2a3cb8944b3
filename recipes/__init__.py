"""Recipes that we stand behind, one YAML for each algorithm and environment."""
