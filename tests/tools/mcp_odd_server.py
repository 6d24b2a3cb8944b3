"""An MCP server whose tools misbehave, each in one way."""

from __future__ import annotations

import asyncio
import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ImageContent, TextContent

server = MCPServer("odd")
calls = 0


@server.tool(name="count.calls")
def count_calls() -> int:
    """Count the calls of this tool since the server started."""
    global calls
    calls += 1
    return calls


@server.tool()
def die(code: int) -> str:
    """End the process."""
    print("the lights went out", file=sys.stderr, flush=True)
    os._exit(code)


@server.tool()
def refuse(why: str) -> str:
    """Refuse."""
    raise ToolError(why)


@server.tool()
def shout(times: int) -> str:
    """Make a long result."""
    return "ha" * times


@server.tool()
async def sleep(seconds: float) -> str:
    """Wait."""
    await asyncio.sleep(seconds)
    return "slept"


@server.tool()
def variables() -> list[str]:
    """Name the environment variables."""
    return sorted(os.environ)


@server.tool()
def picture() -> list[TextContent | ImageContent]:
    """Show a picture."""
    image = ImageContent(type="image", data="AA==", mime_type="image/png")
    return [TextContent(type="text", text="look:"), image]


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    elif sys.argv[1:2] == ["broken"]:
        sys.exit("this server cannot start")
    else:
        server.run("stdio")
