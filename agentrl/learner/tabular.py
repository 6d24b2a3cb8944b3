"""A table in the policy's place: engine and learner of a method's check that takes seconds.

The policy is one row of logits for each pair of last words. Its episodes, trees, credit, packing
and loss are those of any other policy; only the network is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agentrl.core.env import Observation
from agentrl.core.types import Float32, Int32
from agentrl.engine.base import Completion, Sampling
from agentrl.learner.batch import Row
from agentrl.learner.critic import (
    VALUE_SUMS,
    TaughtTokens,
    value_metrics,
    value_sums,
    value_terms,
)
from agentrl.learner.forget import Forgotten, forget_terms
from agentrl.learner.kernels import TrainedTokens
from agentrl.learner.loss import SUMS, metrics, policy_terms, token_sums
from agentrl.learner.settings import LearnerSettings
from agentrl.rollout.render import StopRule

STOP = 0
"""The id that ends an action."""


class Words:
    """A `Rendering` in which every word of a fixed list is a token, and `.` ends an action."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = (".", *words)
        self._ids = {word: index for index, word in enumerate(self.words)}

    @property
    def vocabulary_size(self) -> int:
        """Words and the stop."""
        return len(self.words)

    def encode(self, text: str) -> Int32:
        """Ids of the words of `text`; KeyError for one that is not in the list."""
        return np.asarray([self._ids[word] for word in text.split()], np.int32)

    def decode(self, token_ids: Sequence[int] | Int32) -> str:
        """Words of `token_ids`."""
        return " ".join(self.words[index] for index in token_ids)

    def prompt_ids(
        self, observation: Observation, tool_schemas: Sequence[Mapping[str, object]] = ()
    ) -> Int32:
        """Words of the messages."""
        return self.encode(" ".join(message.text for message in observation))

    def observation_ids(self, observation: Observation, action_ids: Sequence[int] | Int32) -> Int32:
        """Words of the messages."""
        return self.prompt_ids(observation)

    def action_text(self, action_ids: Int32) -> str:
        """The words before the stop."""
        return self.decode([index for index in action_ids if index != STOP])

    def stop_for(self, strings: Sequence[str] = ()) -> StopRule:
        """The stop."""
        return StopRule((), (STOP,))

    def tokens_in(self, ids: Int32) -> int:
        """Each is one."""
        return len(ids)


class Table:
    """The policy: logits (V, V, V) of the next word after each pair of words, float64."""

    def __init__(self, vocabulary: int) -> None:
        self.logits = torch.zeros(vocabulary, vocabulary, vocabulary, dtype=torch.float64)
        self.logits.requires_grad_()

    def next_word(self, context: Int32) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Log-probabilities (V,) after `context`, of which the last two words count."""
        before, last = (STOP, STOP, *context)[-2:]
        with torch.no_grad():
            found = torch.log_softmax(self.logits[int(before), int(last)], -1)
        return found.numpy()

    def logprobs(self, row: Row) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies (n,) of the trained tokens of `row`, with a gradient."""
        log_p, targets = self._words(row)
        entropies = -(log_p.exp() * log_p).sum(-1)
        return log_p.gather(1, targets[:, None])[:, 0], entropies

    def logit_norms(self, row: Row) -> Tensor:
        """Squared norms (n,) of the gradients of the trained tokens' log-probabilities."""
        log_p, targets = self._words(row)
        one_hot = torch.nn.functional.one_hot(targets, log_p.shape[1])
        return (one_hot - log_p.exp()).square().sum(-1)

    def _words(self, row: Row) -> tuple[Tensor, Tensor]:
        """Log-probabilities (n, V) of all words at the trained tokens of `row`, and those (n,)."""
        log_p = torch.log_softmax(self.logits[last_words(row)], -1)
        return log_p, torch.from_numpy(row.token_ids[row.weight != 0].astype(np.int64))


def last_words(row: Row) -> tuple[Int32, Int32]:
    """The two words before each of the trained tokens (n,) of `row`."""
    last = row.previous[np.flatnonzero(row.weight)]
    before = row.previous[last]
    return np.where(before < 0, STOP, row.token_ids[before]), row.token_ids[last]


class TableEngine:
    """An `Engine` over a `Table`: seeded, with exact entropies."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._version = 0

    @property
    def version(self) -> int:
        """Version told by the last `load`."""
        return self._version

    async def start(self) -> None:
        """Nothing to load."""

    async def load(self, weights: Path, version: int) -> None:
        """Take the version: the table is the learner's own."""
        self._version = version

    async def close(self) -> None:
        """Nothing to free."""

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """Words up to the stop or `max_tokens`."""
        rng = np.random.default_rng(sampling.seed)
        context = np.asarray(prompt_ids, np.int32)
        ids: list[int] = []
        logprobs: list[float] = []
        entropies: list[float] = []
        while len(ids) < sampling.max_tokens and (not ids or ids[-1] != STOP):
            log_p = self._table.next_word(np.append(context, np.asarray(ids, np.int32)))
            p = np.exp(log_p)
            ids.append(int(rng.choice(len(p), p=p / p.sum())))
            logprobs.append(log_p[ids[-1]])
            entropies.append(-float(p @ log_p))
        return Completion(
            token_ids=np.asarray(ids, np.int32),
            logprobs=np.asarray(logprobs, np.float32),
            entropies=np.asarray(entropies, np.float32),
            entropy_kind="exact",
            finish_reason="stop" if ids[-1] == STOP else "length",
            policy_version=self._version,
            prefilled_tokens=len(context),
            seconds=0.0,
        )

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """Log-probabilities (T-1,) of the words after the first."""
        ids = np.asarray(token_ids, np.int32)
        found = [self._table.next_word(ids[:at])[ids[at]] for at in range(1, len(ids))]
        return np.asarray(found, np.float32)


class TableCritic:
    """A critic without a network: a value for each pair of last words, 0 at first, plain Adam."""

    def __init__(self, vocabulary: int, settings: LearnerSettings) -> None:
        assert settings.critic is not None
        self.settings = settings.critic
        self._worth = torch.zeros(vocabulary, vocabulary, dtype=torch.float64, requires_grad=True)
        optimizer = settings.optimizer
        self._adam = torch.optim.Adam(
            [self._worth], self.settings.learning_rate, betas=optimizer.betas, eps=optimizer.eps
        )

    def values(self, row: Row) -> Tensor:
        """Values (n,) of the states before the trained tokens of `row`."""
        return self._worth[last_words(row)]

    def update(self, rows: Sequence[Row], denominator: float) -> dict[str, float]:
        """One step on the value loss of all `rows`."""
        self._adam.zero_grad()
        sums = torch.zeros(len(VALUE_SUMS), dtype=torch.float64)
        for number, row in enumerate(rows):
            found = TaughtTokens.of(row, number, torch.device("cpu"))
            tokens = TaughtTokens(*(column.double() for column in found))
            values, clip = self.values(row), self.settings.value_clip
            torch.autograd.backward(value_terms(values, tokens, clip).sum() / denominator)
            sums += value_sums(values.detach(), tokens, clip)
        self._adam.step()
        return value_metrics(sums.tolist(), denominator, self.settings)


class TableLearner:
    """A learner of a `Table`: the loss of `settings`, plain Adam; with a critic, another table."""

    def __init__(self, table: Table, settings: LearnerSettings) -> None:
        self.table = table
        self.settings = settings
        optimizer = settings.optimizer
        self._reference = Table(len(table.logits))
        self._reference.logits = table.logits.detach().clone()
        self._adam = torch.optim.Adam([table.logits], betas=optimizer.betas, eps=optimizer.eps)
        self.critic = TableCritic(len(table.logits), settings) if settings.critic else None
        self._forgotten = Forgotten([table.logits])
        self.updates = 0

    def update(
        self, rows: Sequence[Row], denominator: float, *, kl: float | None = None
    ) -> dict[str, float]:
        """One step on the gradient of all `rows`; as `Learner.update`, but that nothing waits."""
        taught = self.critic.update(rows, denominator) if self.critic is not None else {}
        self._adam.zero_grad()
        sums = torch.zeros(len(SUMS), dtype=torch.float64)
        loss_settings = self.settings.loss
        if kl is not None:
            loss_settings = loss_settings.model_copy(update={"kl": kl})
        for row in rows:
            if not row.trained_tokens:
                continue
            logprobs, entropies = self.table.logprobs(row)
            trained = np.flatnonzero(row.weight)
            columns = (row.positive, row.negative, row.weight, row.behavior_logprobs)
            reference = self._reference.logprobs(row)[0].detach() if loss_settings.kl else None
            positive, negative, weight, behavior = (
                torch.from_numpy(one[trained]).double() for one in columns
            )
            tokens = TrainedTokens(positive, negative, weight, behavior, reference)
            loss = policy_terms(logprobs, entropies, tokens, loss_settings).sum() / denominator
            torch.autograd.backward(loss)
            sums += token_sums(
                logprobs.detach(), entropies.detach(), tokens, loss_settings, objective="policy"
            )
        for group in self._adam.param_groups:
            group["lr"] = self.settings.optimizer.rate(self.updates)
        if self.table.logits.grad is not None:
            self._adam.step()
            self.updates += 1
        total = dict(zip(SUMS, sums.tolist(), strict=True))
        found = metrics(total, denominator, objective="policy", clips=loss_settings.clips)
        return found | taught | {"train/updates": self.updates}

    def logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """Log-probabilities (T,) of each row's trained tokens, else 0.0."""
        return [_column(row, self.table.logprobs(row)[0]) for row in rows]

    def logit_norms(self, rows: Sequence[Row]) -> list[Float32]:
        """As `Learner.logit_norms`."""
        return [_column(row, self.table.logit_norms(row)) for row in rows]

    def values(self, rows: Sequence[Row]) -> list[Float32]:
        """The critic's values (T,) of the states before each row's trained tokens, else 0.0."""
        assert self.critic is not None
        return [_column(row, self.critic.values(row)) for row in rows]

    def forget(self, rows: Sequence[Row], *, rate: float) -> None:
        """As `Learner.forget`."""
        tokens = sum(row.trained_tokens for row in rows)
        gradients = self._forgotten.zeros()
        for row in rows:
            loss = forget_terms(self.table.logprobs(row)[0]).sum() / max(tokens, 1)
            gradients[0].add_(self._forgotten.gradient(loss)[0])
        self._forgotten.step(gradients, rate=rate)

    def recall(self) -> None:
        """As `Learner.recall`."""
        self._forgotten.undo()

    def reference_logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """As `logprobs`, of the table as the learner found it."""
        return [_column(row, self._reference.logprobs(row)[0]) for row in rows]


def _column(row: Row, values: Tensor) -> Float32:
    column = np.zeros(len(row), np.float32)
    column[np.flatnonzero(row.weight)] = values.detach().numpy()
    return column
