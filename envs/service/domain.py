"""What all domains have in common: a database, its tools and how their results are told."""

from __future__ import annotations

import ast
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, Self

from agentrl.core.errors import ToolError
from agentrl.core.tool import Tool, ToolFunction

from .database import Database, Record, Tables

_OPERATORS: Final[dict[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_MAX_EXPRESSION = 200


class Domain(ABC):
    """Tools over a database; a subclass's public methods that `functions` names are the tools."""

    tables: ClassVar[tuple[str, ...]]

    def __init__(self, db: Database) -> None:
        self.db = db

    @classmethod
    def over(cls, tables: Tables) -> Self:
        """The domain over a base that is shared and never changed."""
        return cls(Database(tables))

    @property
    @abstractmethod
    def functions(self) -> Sequence[ToolFunction]:
        """What the policy may call."""

    def tools(self) -> tuple[Tool, ...]:
        """The functions as tools of this state."""
        return tuple(Tool.of(function, max_result_chars=20_000) for function in self.functions)

    def fork(self) -> Self:
        """The same state, changed apart from now on."""
        return type(self)(self.db.fork())

    def found(self, table: str, id_: str, what: str) -> Record:
        """A record to read; `ToolError` where there is none."""
        record = self.db.get(table, id_)
        if record is None:
            raise ToolError(f"{what} {id_} not found")
        return record

    def calculate(self, expression: str) -> str:
        """Calculate the value of an arithmetic expression, rounded to two digits.

        Args:
            expression: Numbers, + - * / and parentheses, such as '2 * (3.5 + 1)'.
        """
        return str(round(_value(expression), 2))

    def transfer_to_human_agents(self, summary: str) -> str:
        """Hand the user over to a human agent, if the request is beyond what you may do.

        Args:
            summary: What the user wants and why it could not be done.
        """
        return "Transfer successful"


def _value(expression: str) -> float:
    if len(expression) > _MAX_EXPRESSION:
        raise ToolError(f"the expression is longer than {_MAX_EXPRESSION} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ToolError(f"{expression!r} is no arithmetic expression") from error
    return _evaluated(tree)


def _evaluated(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluated(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluated(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluated(left), _evaluated(right))
    raise ToolError("only numbers, + - * / and parentheses can be calculated")
