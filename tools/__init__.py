"""Built-in tools. The folder is `tools/`; the import name is `agentrl.tools`."""

if __name__ == "tools":
    raise ImportError("import agentrl.tools, not tools: a second copy would not share its classes")
