"""Lets the policy answer again after a wrong answer, told no more than that it was wrong (UFO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentrl.core.env import Env, Observation, StepInfo, StepResult, history_key
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.types import Message, Task
from agentrl.core.wrappers import Wrapper

FEEDBACK = "Incorrect. Please think again."


def plain_answer(answer: str) -> str:
    """An answer without case and white space, as answers are compared."""
    return "".join(answer.split()).casefold()


class TryAgain(Wrapper):
    """Up to `attempts` answers to one task; after a wrong one the policy reads `feedback`.

    An attempt ends where the inner episode ends: by an answer, or cut off. It solves the task where
    its last step earns at least `solved_reward`. After any other attempt the inner environment is
    set back to where it stood before the action that ended it, and goes on from there; the
    conversation keeps the action and gets `feedback`, and nothing that the inner environment said.
    So what was found or computed before a wrong answer stays, and the inner limit of turns does not
    count wrong answers.

    Reward: at the end, the reward of the last attempt's last step, every component times
    `decay ** t` for attempt t (from 0), and `repeats`, which is
    `-repetition_penalty * (1 - E / T)` for E different answers of T given, compared without case
    and white space (`Env.answer_of`). An attempt without an answer counts in neither and costs
    `invalid`, `-invalid_penalty`, at once. The other attempts' last rewards are not paid. With the
    defaults this is UFO's reward (arXiv:2507.14295, with gamma = lambda = 0.5): solved at t without
    repeats `0.5 ** t`; five equal wrong answers -0.4; solved at the fifth answer after two repeats
    -0.1375, so that a late success can be worth less than a clean failure.
    Ends: terminated by the attempt that solves the task; truncated after `attempts` others.
    Differs from the published code: a failed last attempt is never told "Correct!", the policy
    reads no numbers (reward, actions left), and an action gives one answer.
    Metrics: `attempts`, `answers` (T), `unique_answers` (E), `solved`, beside those of the last
    attempt.

    The inner environment must be able to stand where it stood: forkable by "copy" (it is forked
    before each step) or "replay" (it is reset with the same task and seed, and given its actions
    anew). One with `forkable = "no"` is refused, and so is, by an error in its episode, one whose
    replay shows other observations. Forks as the inner environment does.
    """

    def __init__(
        self,
        env: Env,
        *,
        attempts: int = 5,
        feedback: str = FEEDBACK,
        decay: float = 0.5,
        repetition_penalty: float = 0.5,
        invalid_penalty: float = 0.1,
        solved_reward: float = 1.0,
    ) -> None:
        super().__init__(env)
        if attempts < 1 or not 0.0 <= decay <= 1.0 or min(repetition_penalty, invalid_penalty) < 0:
            raise RecipeError(
                "try_again needs attempts >= 1, decay from 0 to 1 and penalties >= 0, got "
                f"attempts={attempts}, decay={decay}, repetition_penalty={repetition_penalty}, "
                f"invalid_penalty={invalid_penalty}"
            )
        if not feedback.strip():
            raise RecipeError("try_again needs a feedback that says something, got an empty one")
        if env.forkable == "no":
            raise RecipeError(
                f"try_again sets the environment back after a wrong answer, and {env!r} has "
                "forkable = 'no': it cannot be set back"
            )
        self.attempts = attempts
        self.feedback = feedback
        self.decay = decay
        self.repetition_penalty = repetition_penalty
        self.invalid_penalty = invalid_penalty
        self.solved_reward = solved_reward
        # Plain values, replaced and never changed in place: forks share them.
        self._task: Task | None = None
        self._seed = 0
        self._attempt = 0
        self._answers: tuple[str, ...] = ()
        self._history = ""
        self._played: tuple[tuple[str, Observation], ...] = ()
        self._first: Observation = ()

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The inner expert's action, which has not seen that answers were wrong."""
        first, *later = seen
        inner = [first, *(text for text in later if self.feedback not in text)]
        return self.env.expert_action(task, inner)

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode of the inner environment and the counts."""
        self._task, self._seed = None, seed
        self._attempt, self._answers, self._history, self._played = 0, (), "", ()
        self._first = await self.env.reset(task, seed=seed)
        self._task = task
        return self._first

    async def step(self, action: str) -> StepResult:
        """Play a turn; a wrong answer is followed by another attempt while there is one."""
        if self._task is None:
            raise EnvError(f"{self!r}.step was called before reset or after the end")
        before = await self.env.fork() if self.env.forkable == "copy" else None
        try:
            result = await self.env.step(action)
            over = result.terminated or result.truncated
            if over:
                return await self._attempted(action, result, before)
        finally:
            # Whichever of the two is not in use any more.
            if before is not None and before is not self.env:
                await before.close()
        self._played = (*self._played, (action, result.observation))
        return result._replace(info=replace(result.info, state_key=self._key(result.info)))

    async def _attempted(self, action: str, result: StepResult, before: Env | None) -> StepResult:
        solved = result.terminated and result.reward >= self.solved_reward
        answer = self.env.answer_of(action)
        if answer is not None:
            self._answers = (*self._answers, plain_answer(answer))
        invalid = {"invalid": -self.invalid_penalty} if answer is None else {}
        self._attempt += 1
        if not solved and self._attempt < self.attempts:
            return await self._again(action, result, before, invalid)
        self._task = None
        worth = self.decay ** (self._attempt - 1)
        rewards = {name: worth * value for name, value in _components(result).items()}
        rewards |= {"repeats": self._repeats()} | invalid
        info = replace(
            result.info,
            rewards=rewards,
            state_key=self._key(result.info),
            metrics={**result.info.metrics, **self._metrics(solved=solved)},
        )
        return StepResult((), sum(rewards.values()), solved, not solved, info)

    async def _again(
        self,
        action: str,
        result: StepResult,
        before: Env | None,
        invalid: Mapping[str, float],
    ) -> StepResult:
        if before is None:
            await self._replay()
        else:
            ended, self.env = self.env, before
            await ended.close()
        self._history = history_key(self._history, action)
        observation = (Message.of("user", self.feedback),)
        info = StepInfo(
            rewards=invalid,
            tool_calls=result.info.tool_calls,
            malformed_calls=result.info.malformed_calls,
            state_key=self._key(result.info),
        )
        return StepResult(observation, sum(invalid.values()), False, False, info)

    async def _replay(self) -> None:
        """Bring the inner environment to where it stood before its last action."""
        assert self._task is not None
        where = f"{self!r} set back task {self._task.id!r}, and it"
        shown = await self.env.reset(self._task, seed=self._seed)
        for turn, (action, observation) in enumerate((("", self._first), *self._played)):
            if turn:
                result = await self.env.step(action)
                shown = result.observation
                if result.terminated or result.truncated:
                    raise EnvError(f"{where} ended at turn {turn - 1}, which it had not before")
            if shown != observation:
                raise EnvError(f"{where} showed another observation than before, at turn {turn}")

    def _repeats(self) -> float:
        if not self._answers:
            return 0.0
        different = len(set(self._answers)) / len(self._answers)
        return self.repetition_penalty * (different - 1.0)

    def _metrics(self, *, solved: bool) -> dict[str, float]:
        return {
            "attempts": float(self._attempt),
            "answers": float(len(self._answers)),
            "unique_answers": float(len(set(self._answers))),
            "solved": float(solved),
        }

    def _key(self, info: StepInfo) -> str:
        """The inner state and the wrong answers that the policy has seen itself give."""
        return history_key(info.state_key, self._history) if self._history else info.state_key


def _components(result: StepResult) -> Mapping[str, float]:
    """The reward's named parts; one of its own where the environment names none."""
    return result.info.rewards or {"attempt": result.reward}
