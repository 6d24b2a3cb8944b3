"""A small MCP server: the stock of a made-up warehouse, which nobody knows without asking it.

Run as a program of its own (`python warehouse.py`), it speaks MCP over standard input and output.
"""

from __future__ import annotations

import random

ITEMS = ("anchor", "basket", "candle", "drum", "easel", "funnel", "goblet", "hammer")
_ROOMS = ("attic", "cellar", "garage", "loft", "pantry", "shed")


def stock() -> dict[str, tuple[str, int]]:
    """Item -> the room that it is in, and how many there are; always the same."""
    rng = random.Random("mcp/warehouse")
    return {item: (rng.choice(_ROOMS), rng.randrange(2, 60)) for item in ITEMS}


def locate(item: str) -> str:
    """Name the room in which an item is kept."""
    return _found(item)[0]


def count(item: str, room: str) -> int:
    """Count the pieces of an item in a room."""
    where, pieces = _found(item)
    return pieces if room.strip().lower() == where else 0


def _found(item: str) -> tuple[str, int]:
    from mcp.server.mcpserver.exceptions import ToolError

    known = stock()
    if item.strip().lower() not in known:
        raise ToolError(f"no item {item!r} is kept here; there are {', '.join(known)}")
    return known[item.strip().lower()]


def main() -> None:
    """Serve until the input ends."""
    from mcp.server import MCPServer

    server = MCPServer("warehouse")
    server.add_tool(locate)
    server.add_tool(count)
    server.run("stdio")


if __name__ == "__main__":
    main()
