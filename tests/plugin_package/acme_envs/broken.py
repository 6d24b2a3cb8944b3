"""A table that cannot be read."""

raise ImportError("acme needs a licence")
