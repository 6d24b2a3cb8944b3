"""An agent that serves a user by talking and by calling tools, under a written policy."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

from agentrl.core.datasets import Row
from agentrl.core.env import Env, Forkable, Observation, StepInfo, StepResult, history_key
from agentrl.core.errors import EnvError, RecipeError, ToolError
from agentrl.core.formats import Format, make_format
from agentrl.core.tool import Tool
from agentrl.core.types import Message, Task, ToolCall, ToolRecord

from . import desk, scoring
from .domain import Domain
from .model import ChatModel, ModelSettings
from .tasks import DOMAINS, DomainName, read_policy, read_tables, read_tasks, task_of
from .users import STOPS, Said, ScriptedUser, User, model_user


class ServiceEnv(Env):
    """A user wants something; the agent talks, looks things up and changes them (arXiv:2506.07982).

    Observation: the policy, what was said before and the user's first message; then the results
    of tool calls, or the user's reply.
    Action: one or more tool calls, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, run
    in their order; an action without any is a message to the user.
    Reward: `success` at the end, 1.0 if everything holds that the task's `reward_basis` names, else
    0.0: DB (the records are those after the gold actions), COMMUNICATE (each string was said to
    the user), ACTION (each gold action was called), NL_ASSERTION (a judge agrees; without `judge`
    it is left out, and the metric `unjudged` counts it). The metrics hold each by itself.
    Ends: terminated when the user leaves; truncated after `max_turns` actions, which earns 0.0.
    Forks: by copying what the episode changed.
    Data: `train` and `eval` are task files in tau2-bench's form, `db` its database (a file, or a
    folder with a file for each table), `policy` its text. Domains: retail, airline, and desk, a
    small one of our own that needs no data. The user keeps to a script (`ScriptedUser`), or is a
    `user_model` behind any OpenAI-compatible server.

    A task whose gold actions change nothing, and that has nothing to communicate, is also solved
    by an agent that does nothing: tau2-bench has several.
    """

    forkable: ClassVar[Forkable] = "copy"

    def __init__(
        self,
        *,
        domain: DomainName = "desk",
        db: str = "",
        policy: str = "",
        train: str = "",
        eval: str = "",
        user_model: ModelSettings | None = None,
        judge: ModelSettings | None = None,
        instructions: bool = False,
        max_turns: int = 30,
    ) -> None:
        if max_turns < 1:
            raise RecipeError(f"service/tasks needs max_turns >= 1, got {max_turns}")
        if domain != "desk" and not (db and policy):
            raise RecipeError(f"domain {domain!r} needs db and policy, tau2-bench's files")
        self.domain: DomainName = domain
        self.db = db
        self.policy = policy
        self.files = {"train": train, "eval": eval}
        self.user: User = ScriptedUser() if user_model is None else model_user(user_model)
        self.scripted = user_model is None
        self.judge = judge
        self.instructions = instructions
        self.max_turns = max_turns
        self._task: Task | None = None
        self._state: Domain | None = None
        self._format: Format | None = None
        self._said: tuple[Said, ...] = ()
        self._called: tuple[ToolCall, ...] = ()
        self._turn = 0
        self._state_key = ""

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of the split's file; those of our own for the domain desk without files.

        Raises:
            DataError: a file is missing or malformed.
        """
        if any(self.files.values()):
            path = self.files.get(split, "")
            return read_tasks(path, self.domain) if path else ()
        return _own_tasks(split) if self.domain == "desk" else ()

    @property
    def tool_schemas(self) -> tuple[Mapping[str, object], ...]:
        """Of the domain's tools."""
        return tuple(tool.schema for tool in _format_of(self.domain).tools.values())

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """The task's state, and the user's opening."""
        self._task = None
        self._state = self.start(task)
        self._format = make_format("json", self._state.tools())
        self._called, self._turn = (), 0
        before = await self._replay(task.data["history"])
        self._said = tuple(
            Said(message.role == "assistant", message.text)
            for message in before
            if message.role in ("user", "assistant") and message.text
        )
        self._task = task
        system = read_policy(self.policy)
        if self.instructions:
            system += "\n\n" + self._format.instructions()
        opening: tuple[Message, ...] = ()
        if not self._said or self._said[-1].agent:
            opening = (Message.of("user", await self._reply(task)),)
        shown = (Message.of("system", system), *before, *opening)
        self._state_key = history_key(task.id, *(message.text for message in shown))
        return shown

    def start(self, task: Task) -> Domain:
        """The state that `task` starts from, before any message."""
        state = DOMAINS[self.domain].over(read_tables(self.domain, self.db))
        for table, records in task.data["changes"].items():
            for id_, change in records.items():
                if state.db.get(table, id_) is None:
                    state.db.put(table, id_, copy.deepcopy(change))
                else:
                    state.db.edit(table, id_).update(copy.deepcopy(change))
        scoring.act(state, task.data["before"])
        return state

    async def step(self, action: str) -> StepResult:
        """Run the calls of `action`, or say it to the user."""
        task, calls = self._task, self._format
        if task is None or calls is None:
            raise EnvError("ServiceEnv.step was called before reset or after the end")
        parsed = calls.parse(action)
        self._turn += 1
        records: list[ToolRecord] = []
        over = False
        if parsed.answer is not None:
            self._said = (*self._said, Said(True, parsed.answer))
            reply = await self._reply(task)
            over = any(stop in reply for stop in STOPS)
            observation: Observation = () if over else (Message.of("user", calls.neutral(reply)),)
        else:
            texts = []
            for call in parsed.calls:  # in their order: one may need what another changed
                text, record = await self._call(calls.tools[call.name], call)
                texts.append(text)
                records.append(record)
            self._called += parsed.calls
            observation = calls.observation(texts, parsed.errors)
        truncated = not over and self._turn >= self.max_turns
        rewards, metrics = await self._scored(task, over) if over or truncated else ({}, {})
        if over or truncated:
            self._task = None
        told = (message.text for message in observation)
        self._state_key = history_key(self._state_key, action, *told)
        info = StepInfo(
            rewards=rewards,
            state_key=self._state_key,
            tool_calls=tuple(records),
            malformed_calls=len(parsed.errors),
            metrics=metrics,
        )
        return StepResult(observation, sum(rewards.values()), over, truncated, info)

    async def fork(self) -> Self:
        """A copy at this turn: the records that the episode changed, and tools over them."""
        twin = copy.copy(self)
        if self._state is not None:
            twin._state = self._state.fork()
            twin._format = make_format("json", twin._state.tools())
        return twin

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The gold actions one by one, then a message with all that must be said.

        None with a `user_model`, which may want to be talked to first.
        """
        actions = task.data["actions"]
        if not self.scripted or turn > len(actions):
            return None
        calls = _format_of(self.domain)
        if turn < len(actions):
            return calls.call(actions[turn]["name"], actions[turn]["arguments"])
        said = ", ".join(task.data["communicate"])
        return "I have done that for you." + (f" You asked for this: {said}." if said else "")

    async def _reply(self, task: Task) -> str:
        reply = await self.user.reply(task.data["scenario"], self._said)
        self._said = (*self._said, Said(False, reply))
        return reply

    async def _call(self, tool: Tool, call: ToolCall) -> tuple[str, ToolRecord]:
        started = time.perf_counter()
        try:
            text, ok = await tool.call(call.arguments), True
        except ToolError as error:
            text, ok = f"error: {error}", False
        seconds = time.perf_counter() - started
        return text, ToolRecord(call.name, call.arguments, ok, seconds)

    async def _replay(self, history: Sequence[Mapping[str, Any]]) -> list[Message]:
        """Messages of a conversation that had begun, its calls made again."""
        assert self._format is not None and self._state is not None
        shown: list[Message] = []
        for message in history:
            for call in message.get("tool_calls") or []:
                scoring.act(self._state, [call])
                text = self._format.call(call["name"], call["arguments"])
                shown.append(Message.of("tool_call", text))
            if message.get("content"):
                shown.append(Message.of(message["role"], str(message["content"])))
        # A call stands in an assistant's message, which must not count as said to the user.
        self._called = tuple(
            ToolCall(call["name"], call["arguments"])
            for message in history
            for call in message.get("tool_calls") or []
        )
        return [
            Message.of("assistant", one.text) if one.role == "tool_call" else one for one in shown
        ]

    async def _scored(self, task: Task, over: bool) -> tuple[dict[str, float], dict[str, float]]:
        assert self._state is not None
        gold = self.start(task)
        for message in task.data["history"]:
            scoring.act(gold, message.get("tool_calls") or [])
        parts = {
            "db": scoring.database(self._state, gold, task.data["actions"]),
            "communicate": scoring.communicated(self._said, task.data["communicate"]),
            "action": scoring.called(self._called, task.data["actions"]),
        }
        basis = set(task.data["basis"])
        assertions = task.data["assertions"] if "NL_ASSERTION" in basis else []
        judge = None if self.judge is None else _shared_judge(self.judge)
        if assertions and judge is not None:
            parts["nl_assertion"] = await scoring.judged(judge, self._said, assertions)
        counted = [value for name, value in parts.items() if name.upper() in basis]
        success = float(over and all(value == 1.0 for value in counted))
        unjudged = float(len(assertions)) if judge is None else 0.0
        return {"success": success}, {**parts, "unjudged": unjudged}


@lru_cache(maxsize=8)
def _format_of(domain: DomainName) -> Format:
    """The format over tools that are only described, never called."""
    return make_format("json", DOMAINS[domain].over({}).tools())


@lru_cache(maxsize=8)
def _own_tasks(split: str) -> Sequence[Task]:
    tools = {function.__name__ for function in DOMAINS["desk"].over({}).functions}
    return [task_of(Row(f"desk/{split}", row), tools) for row in desk.rows(split)]


@lru_cache(maxsize=8)
def _shared_judge(settings: ModelSettings) -> ChatModel:
    return ChatModel(settings)
