"""`python -m agentrl` is the command `agentrl`."""

from agentrl.cli import main

if __name__ == "__main__":
    main()
