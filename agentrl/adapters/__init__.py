"""Other people's environments and tools, behind our own classes."""
