"""Command line."""


def main() -> None:
    """Run the `agentrl` command."""
