"""A live Python session: questions that take several statements, whose variables stay."""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

from agentrl.core.env import Demonstration, Forkable, Observation, StepResult
from agentrl.core.errors import EnvError, RecipeError, ToolError
from agentrl.core.formats import FormatName
from agentrl.core.tool import Tool
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Message, Task
from agentrl.sandbox import (
    AnySandbox,
    BubblewrapSettings,
    RunResult,
    RunStatus,
    Session,
    shared,
)

from .chains import REDUCTIONS, Chain, Split, chains, compositions, list_names, make_chain

_SANDBOX = BubblewrapSettings()
_TASKS: Mapping[str, int] = {"train": 1024, "eval": 300}
_SLIP = 0.4
"""The chance that the scripted expert takes another reduction than the one asked for."""
_QUEUE_SECONDS = 60.0

_NUMBER = re.compile(r"-?\d+")

_OPERATIONS = (
    ast.Call,
    ast.BinOp,
    ast.BoolOp,
    ast.Compare,
    ast.Subscript,
    ast.IfExp,
    ast.comprehension,
    ast.AugAssign,
    ast.For,
    ast.While,
    ast.With,
    ast.If,
    ast.Try,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Lambda,
    ast.ClassDef,
)
_ENDED = {
    RunStatus.WALL_LIMIT: "error: time limit",
    RunStatus.CPU_LIMIT: "error: time limit",
    RunStatus.MEMORY_LIMIT: "error: memory limit",
    RunStatus.OUTPUT_LIMIT: "error: output limit",
    RunStatus.KILLED: "error: the session was killed",
}


class SessionEnv(ToolEnv):
    """Questions about lists that live in a Python session; their numbers are never shown.

    Observation: the question; after each call what it printed, the value of a last expression
    included, or the last line of its traceback.
    Action: `<python>code</python>` or `<answer>number</answer>` (`format="json"`: tool calls).
    A call does at most `operations` operations (calls, operators, subscripts, loops), so that what
    one leaves in the session is what the next goes on from; None: as many as it likes.
    Reward: `correct`, 1.0 for the exact number, else 0.0.
    Ends: terminated by an answer; truncated after `max_turns` actions.
    Forks: as sessions of the sandbox do. Where they copy themselves a branch has the variables
    and files of its parent, what was changed in place included; else calls are played again.
    Data: made up from a fixed seed: 1024 training tasks, and 300 for evaluation with other names
    of lists, other numbers and other combinations of operations (`chains`).
    """

    def __init__(
        self,
        *,
        max_turns: int = 6,
        operations: int | None = 1,
        max_result_chars: int = 2000,
        format: FormatName = "xml",
        instructions: bool = False,
        sandbox: AnySandbox = _SANDBOX,
    ) -> None:
        super().__init__(format=format, max_turns=max_turns, instructions=instructions)
        if operations is not None and operations < 1:
            raise RecipeError(f"code/session needs operations >= 1, got {operations}")
        self.operations = operations
        self.sandbox = sandbox
        # The sandbox has deadlines of its own; a call may wait for its turn before.
        timeout = sandbox.limits.wall_seconds + _QUEUE_SECONDS
        self.tools = (Tool.of(self.python, timeout=timeout, max_result_chars=max_result_chars),)
        self._session: Session | None = None

    @property
    def forkable(self) -> Forkable:  # type: ignore[override]
        """As the sandbox's sessions."""
        return "copy" if isinstance(self.sandbox, BubblewrapSettings) else "replay"

    async def python(self, code: str) -> str:
        """Run Python in your session, where variables stay; a last expression is shown.

        Args:
            code: A short statement or expression.
        """
        found = _operations(code)
        if self.operations is not None and found > self.operations:
            raise ToolError(
                f"{found} operations in one call, {self.operations} allowed: keep a value in a "
                "variable and go on in the next call"
            )
        assert self._session is not None, "calls run between reset and the end"
        return _told(await self._session.execute(code))

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of a split, with different questions."""
        if split not in ("train", "eval"):
            return ()
        wanted: Split = "train" if split == "train" else "eval"
        rng = random.Random(f"code/session/{split}")
        found: dict[str, Chain] = {}
        for chain in chains(wanted, rng):
            found.setdefault(chain.question, chain)
            if len(found) == _TASKS[split]:
                break
        return [_task(f"{split}-{n}", chain) for n, chain in enumerate(found.values())]

    async def begin(self, task: Task, *, seed: int) -> None:
        """Open a session that holds the task's lists."""
        await self.close()
        self._session = await shared(self.sandbox).open()
        lists = "\n".join(f"{name} = {numbers}" for name, numbers in task.data["lists"].items())
        result = await self._session.execute(lists)
        if result.status is not RunStatus.OK:
            raise EnvError(f"task {task.id!r}: its lists cannot be loaded: {_told(result)}")

    def prompt(self, task: Task) -> str:
        """The question."""
        return str(task.data["question"])

    def score(self, task: Task, answer: str | None) -> Mapping[str, float]:
        """Exact match with the number."""
        return {"correct": float(answer == task.data["answer"])}

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The chain's statements, one a turn; then the answer."""
        statements: Sequence[str] = task.data["statements"]
        if turn < len(statements):
            return self.call_format.call("python", {"code": statements[turn]})
        return self.call_format.answer(task.data["answer"]) if turn == len(statements) else None

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """As `gold_action`, but the answer is the number that the last call showed."""
        turn = len(seen) - 1
        if turn != len(task.data["statements"]):
            return self.gold_action(task, turn)
        shown = _NUMBER.findall(seen[-1])
        return self.call_format.answer(shown[-1] if shown else "unknown")

    def demonstrations(self, *, seed: int) -> Iterator[Demonstration]:
        """Episodes of an expert that takes a wrong reduction two times in five (`_SLIP`).

        So imitation teaches to work in the session and to copy names and results; which
        reduction each word means is sharpened by reward.
        """
        rng = random.Random(f"code/session/demonstrations/{seed}")
        known, names = compositions("train"), list_names("train")
        while True:
            chosen = rng.choice(known)
            slips = {
                one: rng.choice([other for other in REDUCTIONS if other != one])
                for one in REDUCTIONS
                if rng.random() < _SLIP
            }
            yield self._demonstration(make_chain(chosen, rng.sample(names, 2), rng, slips=slips))

    def _demonstration(self, chain: Chain) -> Demonstration:
        turns: list[tuple[str, Observation]] = []
        last = len(chain.statements) - 1
        for number, statement in enumerate(chain.statements):
            shown = str(chain.answer) if number == last else ""
            action = self.call_format.call("python", {"code": statement})
            turns.append((action, self.call_format.observation([shown])))
        turns.append((self.call_format.answer(str(chain.answer)), ()))
        return Demonstration((Message.of("user", chain.question),), tuple(turns))

    async def step(self, action: str) -> StepResult:
        """Play a turn; the session is freed at the end of the episode."""
        result = await super().step(action)
        if result.terminated or result.truncated:
            await self.close()
        return result

    async def fork(self) -> Self:
        """A copy whose session is a fork of this one's."""
        session = self._session
        forked = None if session is None else await session.fork()
        twin = await super().fork()
        twin._session = forked
        return twin

    async def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _task(name: str, chain: Chain) -> Task:
    return Task(
        name,
        {
            "question": chain.question,
            "lists": {key: list(numbers) for key, numbers in chain.lists.items()},
            "statements": list(chain.statements),
            "answer": str(chain.answer),
        },
    )


def _operations(code: str) -> int:
    """Operations in `code`; 0 where it is no Python, which the session says better."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    return sum(isinstance(node, _OPERATIONS) for node in ast.walk(tree))


def _told(result: RunResult) -> str:
    """What the policy reads of a run."""
    parts = [result.stdout.strip()]
    if result.status is RunStatus.ERROR:
        lines = result.stderr.strip().splitlines()
        parts.append(lines[-1] if lines else "error: the code ended the session")
    elif result.status is not RunStatus.OK:
        parts.append(_ENDED[result.status])
    if result.restarted:
        parts.append("the session was started anew: its variables are gone")
    return "\n".join(part for part in parts if part)
