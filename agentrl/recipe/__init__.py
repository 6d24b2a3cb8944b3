"""Recipes: YAML into one strict, typed, frozen `Recipe`."""
