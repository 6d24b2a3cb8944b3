"""Environments and tools from elsewhere: other processes, other machines, other frameworks."""
