"""What runs inside a bubblewrap container: standard library only, nothing of agentrl."""
