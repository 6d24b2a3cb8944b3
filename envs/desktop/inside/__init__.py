"""What runs inside of a desktop, on the Python of the system: nothing here imports agentrl."""
