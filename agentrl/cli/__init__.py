"""Command line."""


def main() -> None:
    """Run the `agentrl` command."""
    from agentrl.cli.app import app

    app()
