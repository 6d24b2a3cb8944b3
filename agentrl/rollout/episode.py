"""One live line of a tree: an environment, an engine, deadlines and the token-exact turn loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from time import monotonic
from typing import Literal, Self, TypeAlias, TypeVar

import numpy as np

from agentrl.core.env import ROOT_STATE, Env, StepResult
from agentrl.core.errors import ContextLengthError, ContractError
from agentrl.core.types import (
    ROOT,
    Failure,
    Int32,
    StopReason,
    Task,
    TrajectoryTree,
)
from agentrl.engine.base import Completion, Paced, Sampling
from agentrl.rollout.closing import Closing
from agentrl.rollout.context import Context
from agentrl.rollout.deadline import OverdueError, within
from agentrl.rollout.render import StopRule
from agentrl.rollout.seeds import derive
from agentrl.rollout.segments import fitted, said_before, turn_of, whole_turns
from agentrl.rollout.stage import (
    DivergedError,
    PhaseError,
    Spent,
    Stage,
    fault_of,
    is_observation,
    reopen,
    stop_of,
)

T = TypeVar("T")
Phase: TypeAlias = Literal["waiting", "reset", "generate", "step", "fork", "idle"]

_AT_ONCE = nullcontext()
_NO_TOKENS = np.zeros(0, np.int32)


class LiveEpisode:
    """`Episode` over an environment and an engine (see `agentrl.rollout.player`).

    A failed environment or engine is first mended, up to `stage.retries` times for each line: a
    fresh environment takes the same task, seed and actions and must answer with the same
    observations; then the failed phase is tried again. A line that cannot be brought back to its
    node (`forkable = "no"`, or other observations) starts again from the root, in the same tree,
    unless it is a branch. Each failure is in `tree.failures`; a line that stays broken ends in a
    leaf that is a failure. A leaf's observation is not recorded: the policy never reads it.

    Python cannot interrupt synchronous code: an environment that blocks inside `step` without
    awaiting holds up every episode of its process (the watchdog names it). Such code belongs in
    a thread, a subprocess or an environment host.
    """

    def __init__(self, stage: Stage, task: Task, *, seed: int, group_id: str) -> None:
        """Prepares; `start` is the way to get one."""
        self.stage = stage
        self.task = task
        self.tree = TrajectoryTree(task.id, _NO_TOKENS, group_id=group_id, seed=seed)
        self.node = ROOT
        self.stop_reason: StopReason | None = None
        self.added: list[int] = []
        self.spent = Spent()
        self.phase: Phase = "waiting"
        self.phase_since = monotonic()
        self._env: Env | None = None
        self._closing = Closing(stage.limits.close_seconds)
        self._stop = StopRule((), ())
        self._state_key = ROOT_STATE
        self._context = Context(_NO_TOKENS)
        self._expected = 0
        self._tokens = 0
        self._retries_left = stage.retries
        self._is_branch = False
        self._holds_slot = False

    @classmethod
    async def start(cls, stage: Stage, task: Task, *, seed: int, group_id: str = "") -> Self:
        """An episode of `task` at the root of a new tree; already ended when its reset failed."""
        self = cls(stage, task, seed=seed, group_id=group_id)
        await self._take_slot()
        try:
            await self._mended(self._enter)
        except PhaseError as error:
            self._end(error.reason, str(error))
        except BaseException:  # nobody has it yet who could close it
            await self.close()
            raise
        return self

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens of the renderer's vocabulary."""
        return self.stage.renderer.vocabulary_size

    @property
    def environment(self) -> str:
        """Name of the environment's class, for people."""
        return "environment" if self._env is None else type(self._env).__name__

    async def propose(self, *, seed: int, whole: bool = False) -> Completion | None:
        """Sample the next action, or a segment of it; None when the line has ended."""
        if self.stop_reason is not None:
            return None
        await self._take_slot()
        try:
            if self._env is None:
                await self._mended(self._rebuild)
            return await self._mended(lambda: self._generate(seed, whole=whole))
        except PhaseError as error:
            self._end(error.reason, str(error))
            return None
        except asyncio.CancelledError:
            self._end(StopReason.CANCELLED, "cancelled while it generated")
            raise

    async def play(self, completion: Completion) -> StopReason | None:
        """Play `completion`; returns why the line ended, or None when it goes on."""
        if self.stop_reason is not None:
            raise ContractError(f"this line has ended ({self.stop_reason}) and cannot be played")
        self.spent.generated_tokens += completion.generated_tokens
        self.spent.prefilled_tokens += completion.prefilled_tokens
        if completion.finish_reason == "segment":
            self._add(completion, _NO_TOKENS, 0.0)
            return None
        action = np.concatenate([said_before(self.tree, self.node), completion.token_ids])
        text = self.stage.renderer.action_text(action)
        self.spent.turns += 1
        began = self.spent.env_seconds
        while True:
            try:
                result = await self._step(text)
                break
            except PhaseError as error:
                if error.reason is not StopReason.ENV_ERROR:
                    return self._end_in(completion, error, began)
                mended = await self._recover(error)
                if mended == "root":
                    self._restart_from_root(completion, error, began)
                    return None
                if mended is not None:
                    return self._end_in(completion, mended, began)
            except asyncio.CancelledError:
                gone = PhaseError(StopReason.CANCELLED, "cancelled while it acted")
                self._end_in(completion, gone, began)
                raise
        return self._settle(completion, result, self.spent.env_seconds - began)

    def follow(self, node: int) -> None:
        """Stand after `node`, a segment that continues this line's node; nothing is played."""
        turn = self.tree.turns[node]
        if self.tree.parents[node] != self.node or not turn.goes_on:
            raise ContractError(f"node {node} is no segment that continues node {self.node}")
        self.node = node
        self.spent.generated_tokens += turn.generated_tokens
        self._took(turn.action_ids)
        self._tokens += len(turn.action_ids)

    async def fork(self) -> Self:
        """A second line from this node: what it spent is copied, its environment its own."""
        twin = type(self)(self.stage, self.task, seed=self.tree.seed, group_id=self.tree.group_id)
        twin.tree, twin.node, twin.spent = self.tree, self.node, self.spent.copy()
        twin._stop, twin._state_key = self._stop, self._state_key
        twin._context, twin._expected = self._context.copy(), self._expected
        twin._tokens, twin._is_branch = self._tokens, True
        env = self._env
        if self.stop_reason is not None or (env is None and not self._is_branch):
            raise ContractError("only a live line that has started can be forked")
        if env is not None and env.forkable == "no":
            raise ContractError(f"{type(env).__name__} has forkable = 'no'; it cannot branch")
        if env is not None and env.forkable == "copy":
            try:
                seconds, late = self.stage.limits.reset_seconds, self._closing.begin
                twin._env = await self._phase("fork", env.fork(), seconds, late=late)
            except PhaseError as error:
                if not error.reason.is_failure or twin._retries_left == 0:
                    twin._end(error.reason, str(error))
                    return twin
                twin._retries_left -= 1
                twin._note(error.reason, str(error))
        # Without an environment (it replays, or its copy failed) one is built when the twin acts.
        return twin

    async def close(self) -> None:
        """Free the environment, then the slot; a line that is still alive ends as cancelled."""
        if self.stop_reason is None:
            unplayed = self._is_branch and not self.added
            self._end(StopReason.CANCELLED, "" if unplayed else "closed before its end")
        try:
            await self._drop_env()
        finally:
            self._free_slot()

    # Slots

    async def _take_slot(self) -> None:
        if not self._holds_slot:
            await self.stage.slots.acquire()
            self._holds_slot = True
            self.stage.live.add(self)

    def _free_slot(self) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self.stage.live.discard(self)
            self.stage.slots.release()

    # Phases

    async def _phase(
        self,
        phase: Phase,
        work: Coroutine[object, object, T],
        limit: float,
        *,
        late: Callable[[T], object] | None = None,
    ) -> T:
        """`work` under its deadline and the episode's; whatever goes wrong is a `PhaseError`."""
        left = self.stage.limits.episode_seconds - self.spent.seconds
        self.phase, self.phase_since = phase, monotonic()
        try:
            return await within(work, max(min(limit, left), 0.0), late=late)
        except OverdueError:
            taken = monotonic() - self.phase_since
            if taken >= left:
                seconds = self.stage.limits.episode_seconds
                raise PhaseError(
                    StopReason.TRUNCATED_TIME, f"episode_seconds = {seconds:g} are over"
                ) from None
            raise self._blame(phase, f"hung for more than {limit:g} s") from None
        except ContextLengthError as error:
            raise PhaseError(StopReason.TRUNCATED_TOKENS, str(error)) from error
        except Exception as error:  # the boundary: an environment or engine may raise anything
            raise self._blame(phase, f"{type(error).__name__}: {error}") from error
        finally:
            taken = monotonic() - self.phase_since
            if phase == "generate":
                self.spent.generate_seconds += taken
            elif phase == "step":
                self.spent.env_seconds += taken
            else:
                self.spent.reset_seconds += taken
            self.phase, self.phase_since = "idle", monotonic()

    def _blame(self, phase: Phase, what: str) -> PhaseError:
        if phase == "generate":
            name = type(self.stage.engine).__name__
            return PhaseError(StopReason.ENGINE_ERROR, f"{name}.generate: {what}")
        return PhaseError(
            StopReason.ENV_ERROR,
            f"{self.environment}.{phase} of task {self.task.id!r}, turn {self.spent.turns}: {what}",
        )

    async def _reset(self) -> Int32:
        """A fresh environment in the place of the old one, reset: the prompt (T,)."""
        try:
            env = self._env = self.stage.make_env()
        except Exception as error:
            raise self._blame("reset", f"{type(error).__name__}: {error}") from error
        seed = derive(self.tree.seed, "env")
        work = env.reset(self.task, seed=seed)
        observation = await self._phase("reset", work, self.stage.limits.reset_seconds)
        if not is_observation(observation):
            raise self._blame("reset", f"returned {observation!r:.100}, not a tuple of messages")
        try:
            return self.stage.renderer.prompt_ids(observation, env.tool_schemas)
        except ContractError as error:
            raise self._blame("reset", str(error)) from error

    async def _step(self, action: str) -> StepResult:
        env = self._env
        assert env is not None
        result = await self._phase("step", env.step(action), self.stage.limits.tool_seconds)
        fault = fault_of(result)
        if fault:
            raise self._blame("step", fault)
        return result

    async def _enter(self) -> None:
        """Reset and take the first observation as the tree's prompt."""
        prompt = await self._reset()
        assert self._env is not None
        self._stop = self.stage.renderer.stop_for(self._env.stop)
        limit = self.stage.limits.max_tokens
        tokens = self.stage.renderer.tokens_in(prompt)
        if tokens >= limit:
            raise PhaseError(
                StopReason.TRUNCATED_TOKENS,
                f"the prompt of task {self.task.id!r} has {tokens} tokens; "
                f"limits.max_tokens = {limit}",
            )
        self.tree.prompt_ids = prompt
        self._context, self._expected, self._tokens = Context(prompt), len(prompt), tokens

    async def _generate(self, seed: int, *, whole: bool) -> Completion:
        if self.spent.seconds >= self.stage.limits.episode_seconds:
            raise PhaseError(StopReason.TRUNCATED_TIME, "episode_seconds are over")
        turn = None if self.node == ROOT else self.tree.turns[self.node]
        tail = (turn.action_ids, turn.observation_ids) if turn else (self.tree.prompt_ids,)
        self._context.check(self._expected, *tail)
        sampling, limits = self.stage.sampling, self.stage.limits
        said = said_before(self.tree, self.node)
        room = min(sampling.max_tokens_per_turn - len(said), limits.max_tokens - self._tokens)
        if limits.max_generated_tokens is not None:
            room = min(room, limits.max_generated_tokens - self.spent.generated_tokens)
        asked = Sampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=room if whole else min(room, sampling.segment_tokens or room),
            stop=self._stop.strings,
            stop_token_ids=self._stop.token_ids,
            seed=seed,
        )
        engine, ids = self.stage.engine, self._context.ids
        async with engine.admission(ids, asked) if isinstance(engine, Paced) else _AT_ONCE:
            work = engine.generate(ids, asked)
            completion = await self._phase("generate", work, limits.turn_seconds)
        found = len(completion.token_ids)
        # Whose text is no tokens counts them itself, thoughts that it keeps to itself included.
        if found == 0 or (completion.usage is None and found > asked.max_tokens):
            what = f"returned {found} tokens, asked for 1 to {asked.max_tokens}"
            raise self._blame("generate", what)
        if sampling.segment_tokens is None and not len(said):
            return completion
        return fitted(completion, said, asked=asked, room=room, renderer=self.stage.renderer)

    # Mending

    async def _mended(self, phase: Callable[[], Coroutine[object, object, T]]) -> T:
        """What `phase` returns, tried again after failures while retries are left."""
        while True:
            try:
                return await phase()
            except PhaseError as error:
                if not error.reason.is_failure or self._retries_left == 0:
                    raise
                self._retries_left -= 1
                self._note(error.reason, str(error))
                if error.reason is StopReason.ENV_ERROR:
                    await self._drop_env()

    async def _recover(self, error: PhaseError) -> PhaseError | Literal["root"] | None:
        """After a failed step: None (at this node again), "root", or the error that stays."""
        env = self._env
        replays = self.spent.turns == 1 or (env is not None and env.forkable != "no")
        while self._retries_left > 0:
            self._retries_left -= 1
            self._note(error.reason, str(error))
            await self._drop_env()
            if replays:
                try:
                    await self._rebuild()
                    return None
                except DivergedError as again:
                    error, replays = again, False
                except PhaseError as again:
                    if not again.reason.is_failure:
                        return again
                    error = again
            if not replays:
                return error if self._is_branch else "root"
        return error

    async def _rebuild(self) -> None:
        """A fresh environment brought to this node by the actions of its path."""
        # `core.fork.fork_env` replays too, but at once, without a deadline for each step, and
        # compares messages, where a tree keeps tokens: it is for tests of environments.
        renderer = self.stage.renderer
        if not np.array_equal(await self._reset(), self.tree.prompt_ids):
            raise self._diverged("a second reset with the same seed shows another prompt")
        path = [self.tree.turns[index] for index in self.tree.path(self.node)]
        for turn in whole_turns(path):
            if turn.goes_on:  # the environment has not seen it
                break
            result = await self._step(renderer.action_text(turn.action_ids))
            ids = renderer.observation_ids(result.observation, turn.action_ids)
            if result.terminated or not np.array_equal(ids, turn.observation_ids):
                raise self._diverged("the same actions, played again, had other observations")

    def _diverged(self, what: str) -> DivergedError:
        blame = self._blame("reset", what)
        return DivergedError(blame.reason, str(blame))

    async def _drop_env(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            self._closing.begin(env)
        await self._closing.ended()

    def _restart_from_root(self, completion: Completion, error: PhaseError, began: float) -> None:
        """Leave the broken path as a failed leaf; the line goes on at the root."""
        self._end_in(completion, error, began, note=False)
        self.node, self.stop_reason = ROOT, None
        retained = self.spent
        self.spent = Spent(
            prefilled_tokens=retained.prefilled_tokens,
            reset_seconds=retained.reset_seconds,
            generate_seconds=retained.generate_seconds,
            env_seconds=retained.env_seconds,
        )
        self._state_key = ROOT_STATE
        self._context = Context(self.tree.prompt_ids)
        self._expected = len(self._context)
        self._tokens = self.stage.renderer.tokens_in(self.tree.prompt_ids)

    # Records

    def _settle(
        self, completion: Completion, result: StepResult, seconds: float
    ) -> StopReason | None:
        """Add the turn; decide whether the line goes on."""
        info, limits = result.info, self.stage.limits
        self.spent.tool_calls += len(info.tool_calls)
        reason = stop_of(result, limits, self.spent)
        observation = _NO_TOKENS
        if reason is None:
            try:
                observation = self.stage.renderer.observation_ids(
                    result.observation, completion.token_ids
                )
            except ContractError as error:
                blame = self._blame("step", str(error))
                return self._end_in(completion, blame, self.spent.env_seconds - seconds)
            if self._tokens_after(completion, observation) >= limits.max_tokens:
                reason, observation = StopReason.TRUNCATED_TOKENS, _NO_TOKENS
        self._add(completion, observation, seconds, result=result)
        self._state_key = info.state_key
        if reason is not None:
            self._end(reason)
        return reason

    def _tokens_after(self, completion: Completion, observation: Int32) -> int:
        """Tokens of the context with one more turn: the server's own count, where it counts."""
        usage = completion.usage
        before = self._tokens + len(completion.token_ids) if usage is None else sum(usage)
        return before + self.stage.renderer.tokens_in(observation)

    def _add(
        self,
        completion: Completion,
        observation: Int32,
        seconds: float,
        *,
        result: StepResult | None = None,
    ) -> None:
        # What goes on within an action acts from no state of its own.
        within = self.node != ROOT and self.tree.turns[self.node].goes_on
        turn = turn_of(
            completion,
            observation,
            result,
            state_key="" if within else self._state_key,
            env_seconds=seconds,
        )
        reopen(self.tree, self.node)
        self.node = self.tree.add(self.node, turn)
        self.added.append(self.node)
        self._took(turn.action_ids, observation)
        self._tokens = self._tokens_after(completion, observation)

    def _took(self, *pieces: Int32) -> None:
        for ids in pieces:
            self._context.append(ids)
            self._expected += len(ids)

    def _end_in(
        self, completion: Completion, error: PhaseError, began: float, *, note: bool = True
    ) -> StopReason:
        """Record the action whose step failed, without observation or reward, and end there."""
        parent = self.node
        self._add(completion, _NO_TOKENS, self.spent.env_seconds - began)
        self.tree.end(self.node, error.reason)
        self.stop_reason = error.reason
        if note and error.reason.is_failure:
            self.tree.failures.append(Failure(parent, error.reason, str(error)))
        return error.reason

    def _end(self, reason: StopReason, message: str = "") -> None:
        """End at this node; where it cannot be a leaf (root, or it has children), note it."""
        self.stop_reason = reason
        owns = bool(self.added) and self.added[-1] == self.node
        if owns and self.node not in self.tree.leaves and self.node not in self.tree.parents:
            self.tree.end(self.node, reason)
            if not reason.is_failure:
                return
        if message:
            self._note(reason, message)

    def _note(self, reason: StopReason, message: str) -> None:
        self.tree.failures.append(Failure(self.node, reason, message))
