"""Arguments of a call checked against a JSON schema that came from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter
from pydantic_core import PydanticCustomError

from agentrl.core.errors import ContractError, SetupError

_SCALARS: Mapping[object, Any] = {"integer": int, "number": float, "boolean": bool}


def schema_validators(parameters: Mapping[str, Any], *, where: str) -> dict[str, TypeAdapter[Any]]:
    """What checks each property of `parameters`, a JSON schema of an object (draft 2020-12).

    Text is taken for a number or a boolean where the property must be one, as policies write
    text. References to other documents are not followed.

    Raises:
        ContractError: `parameters` is no schema of an object.
        SetupError: the package jsonschema is missing.
    """
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
        from referencing import Registry
    except ImportError as error:
        raise SetupError(
            'tools with schemas of their own need jsonschema: pip install "agentrl[mcp]"'
        ) from error
    properties = parameters.get("properties", {})
    if parameters.get("type", "object") != "object" or not isinstance(properties, Mapping):
        raise ContractError(f"{where}: its parameters are no schema of an object")
    try:
        Draft202012Validator.check_schema(parameters)
    except SchemaError as error:
        raise ContractError(f"{where}: no JSON schema: {error.message}") from error
    shared = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    validators: dict[str, TypeAdapter[Any]] = {}
    for name, found in properties.items():
        schema = {**found, **shared} if isinstance(found, Mapping) else found
        # An empty registry: the default one would fetch what a schema refers to.
        checker = Draft202012Validator(schema, registry=Registry())
        kind = _SCALARS.get(found.get("type"), Any) if isinstance(found, Mapping) else Any
        hint: Any = Annotated[kind, AfterValidator(_checked_by(checker))]
        validators[name] = TypeAdapter(hint)
    return validators


def _checked_by(checker: Any) -> Callable[[Any], Any]:
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    def check(value: Any) -> Any:
        try:
            error = best_match(checker.iter_errors(value))
        except (Unresolvable, RecursionError) as failure:
            said = f"the schema cannot be applied: {failure}"
            raise PydanticCustomError("schema", "{said}", {"said": said}) from failure
        if error is not None:
            raise PydanticCustomError("schema", "{said}", {"said": error.message})
        return value

    return check
