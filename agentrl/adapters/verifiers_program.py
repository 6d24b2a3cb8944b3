"""The program of an agent in a verifiers rollout: a chat loop with MCP tools, in this process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx
import verifiers.v1 as vf
from verifiers.v1.types import content_text

NAME = "agentrl_chat_loop"
"""The name under which verifiers finds this module."""

_SECONDS = 3600.0


class ChatLoopConfig(vf.HarnessConfig):  # type: ignore[misc]
    """Settings of `ChatLoop`: none of its own."""

    id: str = NAME


class ChatLoop(vf.Harness[ChatLoopConfig]):  # type: ignore[misc]
    """Calls the model until it answers without a call of a tool.

    The tools are those of the task's MCP servers, named `server_tool` as verifiers' own programs
    name them.
    """

    APPENDS_SYSTEM_PROMPT: ClassVar[bool] = True
    SUPPORTS_MCP: ClassVar[bool] = True
    SUPPORTS_RESUME: ClassVar[bool] = True
    EXECUTES_CODE: ClassVar[bool] = False
    NEEDS_CONTAINER: ClassVar[bool] = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: Any,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
        tool_interception_url: str | None = None,
    ) -> vf.ProgramResult:
        """Play one segment of the conversation."""
        system, prompt = self.resolve_prompt(data)
        messages: list[dict[str, Any]] = []
        if system:
            messages.append({"role": "system", "content": system})
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        elif prompt is not None:
            messages += [_wire(one) for one in prompt]
        async with contextlib.AsyncExitStack() as stack:
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=_SECONDS))
            tools = await _Tools.connect(mcp_urls, stack, self.config)
            while True:
                body: dict[str, Any] = {"model": ctx.model, "messages": messages}
                if tools.schemas:
                    body["tools"] = tools.schemas
                answer = await http.post(
                    f"{endpoint}/chat/completions",
                    json=body,
                    headers={"authorization": f"Bearer {secret}"},
                )
                if answer.status_code != 200:
                    # A limit or a stop of the environment ends the rollout so; else it is told.
                    return vf.ProgramResult(exit_code=1, stdout="", stderr=answer.text)
                message = answer.json()["choices"][0]["message"]
                messages.append({"role": "assistant", **message})
                if not message.get("tool_calls"):
                    return vf.ProgramResult(exit_code=0, stdout="", stderr="")
                for call in message["tool_calls"]:
                    said = await tools.call(call["function"])
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})


class _Tools:
    """The tools of some MCP servers."""

    def __init__(self) -> None:
        self.schemas: list[dict[str, Any]] = []
        self._clients: dict[str, tuple[Any, str]] = {}

    @classmethod
    async def connect(
        cls, urls: Mapping[str, str], stack: contextlib.AsyncExitStack, config: vf.HarnessConfig
    ) -> _Tools:
        """The tools of all servers; connections end with `stack`."""
        tools = cls()
        for server, url in urls.items():
            from mcp import Client

            client = await stack.enter_async_context(Client(url))
            for one in (await client.list_tools()).tools:
                name = f"{server}_{one.name}" if server else one.name
                if name in (config.disabled_tools or ()):
                    continue
                described = {
                    "name": name,
                    "description": one.description or "",
                    "parameters": one.input_schema,
                }
                tools.schemas.append({"type": "function", "function": described})
                tools._clients[name] = (client, one.name)
        return tools

    async def call(self, function: Mapping[str, str]) -> str:
        """What the tool says; its refusals too are for the policy."""
        client, name = self._clients[function["name"]]
        result = await client.call_tool(name, json.loads(function["arguments"]))
        return "\n".join(
            str(block.text) if block.type == "text" else f"[{block.type}]"
            for block in result.content
        )


def _wire(message: Any) -> dict[str, Any]:
    """A message of verifiers as a chat API takes it."""
    told: dict[str, Any] = {"role": message.role, "content": content_text(message.content)}
    if message.role == "tool":
        told["tool_call_id"] = message.tool_call_id
    if message.role == "assistant" and message.tool_calls:
        told["content"] = message.content
        told["tool_calls"] = [
            {
                "id": one.id,
                "type": "function",
                "function": {"name": one.name, "arguments": one.arguments},
            }
            for one in message.tool_calls
        ]
    return told


__all__ = ["ChatLoop"]
