"""A tool is a plain typed Python function; its schema comes from its signature and docstring."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from agentrl.core.errors import AgentRLError, ContractError, EnvError, ToolError, nearest
from agentrl.core.schemas import schema_validators
from agentrl.core.threads import in_thread

ToolFunction: TypeAlias = Callable[..., object]

POLICY_ERRORS = (ValueError, ArithmeticError, LookupError)
"""What a tool may raise beside `ToolError` to refuse a call; any other exception is a failure."""

_SCALARS = ("string", "integer", "number", "boolean")
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")
_PARAMETER = re.compile(r"^(\w+)(?: *\([^)]*\))?: *(.*)$")


class _Signature(NamedTuple):
    """What is known of a function's parameters; the same for every bound copy of a method."""

    validators: Mapping[str, TypeAdapter[Any]]
    required: tuple[str, ...]
    schema: Mapping[str, object]
    description: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the policy can call, with its schema, deadline and limit on results.

    `timeout` is in seconds, `max_result_chars` in characters. A synchronous function runs in a
    thread: past the deadline the call is refused and the thread is left to end by itself (Python
    cannot stop one). An asynchronous function is cancelled; it must not block the event loop.
    """

    function: ToolFunction
    name: str
    timeout: float
    max_result_chars: int
    signature: _Signature

    @classmethod
    def of(
        cls,
        function: ToolFunction | Tool,
        *,
        name: str | None = None,
        timeout: float = 30.0,
        max_result_chars: int = 8000,
    ) -> Tool:
        """The tool of a typed, documented function; a `Tool` is returned as it is.

        Raises:
            ContractError: a parameter without type hint, `*args`, or no docstring.
        """
        if isinstance(function, Tool):
            return function
        name = name or str(getattr(function, "__name__", ""))
        _check_tool(function, name, timeout, max_result_chars)
        # A bound method shares its signature with every other instance's.
        plain = getattr(function, "__func__", function)
        skip_first = plain is not function
        return cls(function, name, timeout, max_result_chars, _signature(plain, skip_first, name))

    @classmethod
    def from_schema(
        cls,
        function: ToolFunction,
        *,
        name: str,
        description: str,
        parameters: Mapping[str, Any],
        timeout: float = 30.0,
        max_result_chars: int = 8000,
    ) -> Tool:
        """The tool of `function`, called by name with what the JSON schema `parameters` allows.

        For tools whose schemas come from elsewhere. The schema is told to the policy as it is;
        each argument is checked against its own property, and other arguments are refused.

        Raises:
            ContractError: a wrong name or limit, or `parameters` is no schema of an object.
            SetupError: the package jsonschema is missing.
        """
        _check_tool(function, name, timeout, max_result_chars)
        validators = schema_validators(parameters, where=f"tool {name}")
        required = tuple(one for one in parameters.get("required", ()) if one in validators)
        schema = {"type": "object", "properties": {}, **parameters}
        signature = _Signature(validators, required, schema, description)
        return cls(function, name, timeout, max_result_chars, signature)

    @property
    def description(self) -> str:
        """The docstring without its sections."""
        return self.signature.description

    @property
    def schema(self) -> Mapping[str, object]:
        """The function schema of OpenAI's API and of Hermes and Qwen chat templates."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": self.signature.schema,
            },
        }

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters, in order."""
        return tuple(self.signature.validators)

    @property
    def text_parameter(self) -> str | None:
        """The parameter that a tag's text fills: the only one, or the only required one."""
        names = self.signature.required or self.parameters
        if len(names) != 1:
            return None
        properties = self.signature.schema["properties"]
        assert isinstance(properties, dict)
        return names[0] if properties[names[0]].get("type") in _SCALARS else None

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """`arguments` converted to the types of the hints.

        Raises:
            ToolError: a missing, unknown or ill-typed argument, in words for the policy.
        """
        known = self.signature.validators
        for given in arguments:
            if given not in known:
                takes = ", ".join(known) or "none"
                shown = quoted(given)
                raise ToolError(
                    f"{self.name} has no argument {shown}.{nearest(str(given), known)} "
                    f"Its arguments: {takes}."
                )
        missing = [one for one in self.signature.required if one not in arguments]
        if missing:
            raise ToolError(f"{self.name} needs the argument {missing[0]!r}, which is missing.")
        values: dict[str, Any] = {}
        for key, value in arguments.items():
            try:
                values[key] = known[key].validate_python(value)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = "".join(f"[{quoted(part)}]" for part in first["loc"])
                said = first["msg"][0].lower() + first["msg"][1:]
                raise ToolError(f"{self.name}: {key}{where}: {_cut(said, 300)}.") from error
        return values

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """The result as text, cut with a visible mark where it is too long.

        Raises:
            ToolError: wrong arguments, deadline passed, or the function refused (`POLICY_ERRORS`).
            EnvError: the function failed in any other way; other errors of ours pass through.
        """
        values = self.validate(arguments)
        try:
            result = await self._run(values)
        except AgentRLError:
            raise
        except POLICY_ERRORS as error:
            said = _cut(str(error), 500) or "no message"
            raise ToolError(f"{self.name}: {type(error).__name__}: {said}") from error
        except Exception as error:
            raise EnvError(f"tool {self.name} failed: {type(error).__name__}: {error}") from error
        return _cut(_as_text(result), self.max_result_chars)

    async def _run(self, values: Mapping[str, Any]) -> object:
        if _is_async(self.function):
            awaitable = self.function(**values)
            assert isinstance(awaitable, Coroutine)
        else:
            awaitable = in_thread(functools.partial(self.function, **values))
        running: asyncio.Task[object] = asyncio.ensure_future(awaitable)
        try:
            # Not wait_for: it would wait for a function that swallows its cancellation.
            done, _ = await asyncio.wait({running}, timeout=self.timeout)
        except asyncio.CancelledError:
            running.cancel()
            raise
        if not done:
            running.cancel()
            running.add_done_callback(_consume)
            raise ToolError(f"{self.name} did not answer within {self.timeout:g} s.")
        result = running.result()
        if isinstance(result, Coroutine):
            result.close()
            raise EnvError(f"tool {self.name} returned a coroutine: define it with `async def`")
        return result

    def rebound(self, old: object, new: object) -> Tool:
        """A tool with its function bound to `new` where it is a method bound to `old`."""
        if getattr(self.function, "__self__", None) is not old:
            return self
        return replace(self, function=self.function.__func__.__get__(new))  # type: ignore[attr-defined]


def _check_tool(function: object, name: str, timeout: float, max_result_chars: int) -> None:
    if timeout <= 0 or max_result_chars < 1:
        raise ContractError(
            f"a tool needs timeout > 0 and max_result_chars >= 1, got {timeout} and "
            f"{max_result_chars}"
        )
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise ContractError(
            f"{function!r} has no name that a policy can write, got {name!r}: "
            "pass name= with letters, digits and underscores"
        )


def quoted(name: object) -> str:
    """A name that the policy wrote, safe to repeat to it: short, and without any tag."""
    text = str(name)
    text = text if len(text) <= 40 else text[:40] + "..."
    return repr(text.replace("<", "(").replace(">", ")"))


def _is_async(function: ToolFunction) -> bool:
    # Not unwrapped: a decorator decides anew whether it is asynchronous.
    called = function if inspect.isroutine(function) else type(function).__call__
    return inspect.iscoroutinefunction(called)


def _consume(future: asyncio.Future[object]) -> None:
    if not future.cancelled():
        future.exception()


@functools.lru_cache(maxsize=512)
def _signature(function: ToolFunction, skip_first: bool, name: str) -> _Signature:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        hints = get_type_hints(target, include_extras=True)
    except NameError as error:
        raise ContractError(f"tool {name}: a type hint cannot be resolved: {error}") from error
    parameters = list(inspect.signature(function).parameters.values())[int(skip_first) :]
    validators: dict[str, TypeAdapter[Any]] = {}
    required: list[str] = []
    for one in parameters:
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            raise ContractError(
                f"tool {name}: parameter {one} cannot be given by name; a policy names every one"
            )
        if one.name not in hints:
            hint = " (a method: give it bound, from a `tools` property)"
            raise ContractError(
                f"tool {name}: parameter {one.name!r} has no type hint"
                f"{hint if one.name == 'self' else ''}"
            )
        try:
            validators[one.name] = TypeAdapter(hints[one.name])
        except PydanticSchemaGenerationError as error:
            raise ContractError(
                f"tool {name}: {one.name}: {hints[one.name]!r} is no type that arguments can have"
            ) from error
        if one.default is one.empty:
            required.append(one.name)
    description, documented = _docstring(inspect.cleandoc(target.__doc__ or ""))
    if not description:
        raise ContractError(f"tool {name} has no docstring: it is what the policy reads of it")
    schema = _schema(validators, tuple(required), documented)
    return _Signature(validators, tuple(required), schema, description)


def _schema(
    validators: Mapping[str, TypeAdapter[Any]],
    required: tuple[str, ...],
    documented: Mapping[str, str],
) -> dict[str, object]:
    per_key, definitions = TypeAdapter.json_schemas(
        [(name, "validation", adapter) for name, adapter in validators.items()]
    )
    properties: dict[str, object] = {}
    for name in validators:
        described = {"description": documented[name]} if name in documented else {}
        properties[name] = {**per_key[name, "validation"], **described}
    schema: dict[str, object] = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    if "$defs" in definitions:
        schema["$defs"] = definitions["$defs"]
    return schema


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description, and each parameter's own from an `Args:` section (Google style)."""
    description: list[str] = []
    documented: dict[str, str] = {}
    section, current = "", ""
    for line in text.splitlines():
        if heading := _SECTION.match(line):
            section, current = heading[1], ""
        elif not section:
            description.append(line.strip())
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            indent = len(line) - len(line.lstrip())
            match = _PARAMETER.match(line.strip())
            if match and indent <= 4:
                current = match[1]
                documented[current] = match[2]
            elif current:
                documented[current] += " " + line.strip()
    paragraphs = "\n".join(description).strip().split("\n\n")
    return "\n".join(" ".join(one.split()) for one in paragraphs), documented


def _as_text(result: object) -> str:
    if isinstance(result, str):
        return result
    return json.dumps(result, ensure_ascii=False, default=str)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[cut: {len(text) - limit} of {len(text)} characters not shown]"
