"""One rank of the learner: a policy, its DeepSpeed engine and updates from packed rows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from agentrl.core.errors import ContractError, LearnerError
from agentrl.core.types import Float32, Int32
from agentrl.engine.weights import WeightFile
from agentrl.learner.batch import Row, check_trainable, empty_row
from agentrl.learner.critic import (
    VALUE_SUMS,
    Critic,
    TaughtTokens,
    shared_terms,
    value_metrics,
    value_sums,
)
from agentrl.learner.entropy_control import EntropyBonus
from agentrl.learner.forget import Forgotten, forget_terms
from agentrl.learner.kernels import TrainedTokens
from agentrl.learner.loss import SUMS, Objective, metrics, nll_terms, policy_terms, token_sums
from agentrl.learner.model import PackedPolicy, load_policy
from agentrl.learner.optimized import Optimized
from agentrl.learner.ranks import device_of, join
from agentrl.learner.state import read_state, write_state

if TYPE_CHECKING:
    from agentrl.learner.logprobs import ChunkedLoss
    from agentrl.learner.settings import LearnerSettings


class Learner:
    """Trains one policy; where `settings.ranks` > 1, one of the ranks that do so together.

    Every method is then a collective call: all ranks make it, each with its own rows. After its
    start the learner draws no random numbers, so equal rows give equal weights.
    """

    def __init__(
        self,
        settings: LearnerSettings,
        model: str | Path,
        *,
        objective: Objective = "policy",
        temperature: float = 1.0,
        seed: int = 0,
        rank: int = 0,
        address: str | None = None,
    ) -> None:
        """Load `model` (folder or hub name) and put it under DeepSpeed.

        `temperature` is the sampling temperature that the rows' tokens were drawn at. `address`
        (`tcp://host:port`, rank 0's) is where several ranks meet.
        """
        self.settings = settings
        self.objective: Objective = objective
        self.temperature = temperature
        self.updates = 0
        self._bonus = EntropyBonus(settings.loss.entropy, settings.entropy_control)
        self._loss = settings.loss
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.device = device_of(settings.device)
        join(settings.ranks, rank, address, self.device)

        def load(*, trained: bool) -> PackedPolicy:
            return load_policy(
                model,
                dtype=settings.dtype,
                lora=settings.lora if trained else None,
                gradient_checkpointing=settings.gradient_checkpointing and trained,
                seed=seed,
            )

        # The loss asks for the reference in every update, a reward only when it is asked.
        self._with_reference = objective == "policy" and settings.loss.kl > 0
        self._reference: PackedPolicy | None = None
        if objective == "policy" and settings.needs_reference and settings.lora is None:
            self._reference = load(trained=False).to(self.device).requires_grad_(False)
        self._policy = load(trained=True).to(self.device)
        self._critic_settings = settings.critic if objective == "policy" else None
        self._critic: Critic | None = None
        head = None
        if self._critic_settings is not None:
            if self._critic_settings.trunk == "shared":
                head = self._policy.add_value_head().to(self.device)
            else:
                self._critic = Critic(load(trained=True), settings, self.device)
        self._engine = Optimized(self._policy, settings, apart=head)
        self._forgotten = Forgotten(list(self._policy.parameters()))
        self._shared: WeightFile | None = None
        self._closed = False

    def update(
        self,
        rows: Sequence[Row],
        denominator: float,
        *,
        kl: float | None = None,
        row_ids: Sequence[int] | None = None,
    ) -> dict[str, float]:
        """One optimizer step on the gradient of the global batch; metrics of all ranks' rows.

        The loss is the sum over all ranks' rows and tokens / `denominator` (see `Batch`); each row
        is a micro-batch. Without a trained token on any rank nothing changes. `kl` weighs the
        penalty against the reference in place of `learner.loss.kl`, where that is above 0.
        `row_ids` name the rows in errors. Raises `ContractError` on a row that cannot be trained,
        before anything happens, and `LearnerError` on a log-probability or gradient that is not
        finite: the learner is then of no further use, a new one is to load a checkpoint.
        """
        if not denominator > 0:
            raise ContractError(f"the batch's denominator must be positive, got {denominator}")
        self._refuse_forgotten("trained")
        started = time.perf_counter()
        loss = self.settings.loss
        weights = {"entropy": self._bonus.current, "kl": loss.kl if kl is None else kl}
        self._loss = loss.model_copy(update=weights)
        names = range(len(rows)) if row_ids is None else row_ids
        kept = [(i, row) for i, row in zip(names, rows, strict=True) if row.trained_tokens]
        for row_id, row in kept:
            check_trainable(row, row_id)
            self._taught(row, row_id)
        sums = torch.zeros(len(SUMS) + len(VALUE_SUMS), dtype=torch.float64)
        count = int(self._largest(len(kept)))
        largest = 0.0
        moves = self.updates >= self._warmup
        for index in range(count):
            # A rank with fewer rows goes through as many passes: gradients are reduced in each.
            row_id, row = kept[index] if index < len(kept) else (-1, empty_row())
            taught = self._taught(row, row_id)
            if moves:
                found, apart = self._backward(row, row_id, denominator, taught)
                sums += found
                largest = max(largest, apart)
            if self._critic is not None and taught is not None:
                scale = self._world / denominator
                sums[len(SUMS) :] += self._critic.backward(
                    self._inputs(row), row.layout, taught, scale=scale, update=self.updates
                )
        summed = self._summed(sums).tolist()
        total = dict(zip(SUMS, summed, strict=False))
        steps = self._step(moves=moves) if count else {}
        if self._critic_settings is not None:
            steps |= value_metrics(summed[len(SUMS) :], denominator, self._critic_settings)
        means = metrics(
            total,
            denominator,
            objective=self.objective,
            with_reference=self._with_reference,
            clips=self.settings.loss.clips,
        )
        if self.objective == "policy":
            means["train/behavior_difference_largest"] = self._largest(largest)
        means |= self._bonus.after(means.get("train/entropy"))
        idle = {"train/gradient_norm": 0.0, "train/learning_rate": 0.0}
        seconds = time.perf_counter() - started
        counts = {"train/updates": float(self.updates), "train/seconds": seconds}
        return means | idle | steps | counts

    def logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """Log-probabilities (T,) of each row's trained tokens as `update` sees them, else 0.0."""
        return self._columns(
            rows, lambda row: self._forward(row, temperature=self.temperature).logprobs
        )

    def logit_norms(self, rows: Sequence[Row]) -> list[Float32]:
        """Squared norms (T,) of the gradients of `logprobs` to the logits, else 0.0.

            1 - 2 pi(token) + sum over the vocabulary of pi^2

        The sum is exp(2 log p - log p'), p' being the token's probability at half the temperature,
        so it takes two forward passes and no other kernel.
        """
        return self._columns(rows, self._logit_norms_of)

    def values(self, rows: Sequence[Row]) -> list[Float32]:
        """The critic's values (T,) of the states before each row's trained tokens, else 0.0.

        Raises `LearnerError` where there is no critic.
        """
        if self._critic_settings is None:
            raise LearnerError("this learner has no critic: learner.critic is not set")
        return self._columns(rows, self._values_of)

    def reference_logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        """As `logprobs`, of the reference: the model as it was loaded, before any update.

        Raises `LearnerError` where no setting asked for a reference, so that there is none.
        """
        if not self.settings.needs_reference or self.objective != "policy":
            raise LearnerError(
                "this learner has no reference: neither learner.loss.kl nor learner.kl_in_reward "
                "is above 0, so none was loaded"
            )
        return self._columns(rows, self._reference_of)

    def _columns(self, rows: Sequence[Row], evaluate: Callable[[Row], Tensor]) -> list[Float32]:
        """What `evaluate` says of each row's trained tokens, as columns (T,)."""
        for index, row in enumerate(rows):
            check_trainable(row, index)
        found: list[Float32] = []
        for index in range(int(self._largest(len(rows)))):
            row = rows[index] if index < len(rows) else empty_row()
            values = evaluate(row)
            column = np.zeros(len(row), np.float32)
            column[np.flatnonzero(row.weight)] = values.float().cpu().numpy()
            found.append(column)
        return found[: len(rows)]

    def score(self, sequences: Sequence[Sequence[int] | Int32]) -> list[Float32]:
        """Log-probabilities (T-1,) of tokens 1.. of each sequence, at temperature 1.

        As `Engine.score`; all ranks give the same sequences.
        """
        scores = []
        for token_ids in sequences:
            weight = np.ones(len(token_ids), np.float32)
            weight[:1] = 0.0
            row = Row.sequence(token_ids, weight=weight)
            scores.append(self._forward(row, temperature=1.0).logprobs.float().cpu().numpy())
        return scores

    def forget(self, rows: Sequence[Row], *, rate: float) -> None:
        """Move the weights a step of `rate` away from the trained tokens of `rows`, until `recall`.

        One plain gradient step on the mean of `forget_terms` over all ranks' tokens (EEPO). What is
        published and scored meanwhile is the moved policy; training it or saving it is refused. Not
        with ZeRO 3, whose ranks hold parts of the weights.
        """
        self._refuse_forgotten("moved again")
        kept = [row for row in rows if row.trained_tokens]
        tokens = float(self._summed(torch.tensor([float(sum(r.trained_tokens for r in kept))])))
        gradients = self._forgotten.zeros()
        for row in kept:
            # Past DeepSpeed, which lets nobody else ask for a gradient of what went through it.
            result: ChunkedLoss = self._policy(
                *self._inputs(row),
                layout=row.layout,
                temperature=self.temperature,
                terms=lambda _span, logprobs, _entropies: forget_terms(logprobs),
                scale=1.0 / max(tokens, 1.0),
            )
            for total, found in zip(gradients, self._forgotten.gradient(result.loss), strict=True):
                total.add_(found)
        if self._world > 1:
            for gradient in gradients:
                torch.distributed.all_reduce(gradient)
        self._forgotten.step(gradients, rate=rate)

    def recall(self) -> None:
        """Undo `forget`, bit for bit; without one nothing happens."""
        self._forgotten.undo()

    def _refuse_forgotten(self, what: str) -> None:
        if self._forgotten.active:
            raise LearnerError(f"the weights are those after `forget`: they cannot be {what}")

    def export(self, path: Path) -> None:
        """Write the weights under hub names to the safetensors file `path`, whole or not at all."""
        from safetensors.torch import save_file

        weights = self._policy.hub_weights()
        if self._rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            try:
                save_file(weights, part, metadata={"format": "pt"})
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        self._meet()

    def publish(self, path: Path) -> None:
        """Write the weights to `path` again and again, in place: for engines of this machine.

        As `export`, at the cost of one copy in memory; nobody may read the file meanwhile.
        """
        weights = self._policy.hub_weights()
        if self._rank == 0:
            if self._shared is None or self._shared.path != path:
                self._shared = WeightFile(path)
            self._shared.write(weights)
        self._meet()

    def save(self, folder: Path) -> None:
        """Write weights, optimizer and counters into `folder`; the caller makes that atomic."""
        self._refuse_forgotten("saved")
        folder.mkdir(parents=True, exist_ok=True)
        self._engine.save(folder)
        if self._critic is not None:
            self._critic.save(folder / "critic")
        if self._rank == 0:
            state = {"updates": self.updates, "entropy_bonus": self._bonus.state()}
            write_state(folder, self._identity(), state)
        self._meet()

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote, bit for bit as if never interrupted (on a CPU).

        Raises `CheckpointError` where it is missing, damaged or of another learner.
        """
        state = read_state(folder, self._identity())
        self._engine.load(folder)
        if self._critic is not None:
            self._critic.load(folder / "critic")
        self.updates = int(state["updates"])
        self._bonus.restore(state["entropy_bonus"])

    def close(self) -> None:
        """Free the hooks and buffers of the engine; may be called twice, and nothing after it."""
        if not self._closed:
            self._closed = True
            if self._shared is not None:
                self._shared.close()
            self._engine.close()
            if self._critic is not None:
                self._critic.close()

    def _backward(
        self, row: Row, row_id: int, denominator: float, taught: TaughtTokens | None
    ) -> tuple[Tensor, float]:
        """Add the gradient of `row` to the policy's, that of a critic on its trunk included.

        Returns the row's `SUMS` and, behind them, that critic's `VALUE_SUMS` on the CPU, and the
        largest |policy - behaviour log-probability|.
        """
        tokens = self._tokens(row)
        critic, worth = self._critic_settings, None
        if critic is not None and taught is not None:
            worth = shared_terms(taught, critic, self.updates)

        def terms(span: slice, logprobs: Tensor, entropies: Tensor) -> Tensor:
            part = tokens.part(span)
            if self.objective == "nll":
                return nll_terms(logprobs, part)
            return policy_terms(logprobs, entropies, part, self._loss)

        # DeepSpeed averages gradients over ranks; the loss is a sum over them.
        result = self._forward(
            row,
            temperature=self.temperature,
            terms=terms,
            scale=self._world / denominator,
            value_terms=worth,
        )
        finite = torch.isfinite(result.logprobs)
        if not bool(finite.all()):
            index = int(np.flatnonzero(row.weight)[int((~finite).nonzero()[0, 0])])
            raise LearnerError(
                f"row {row_id}: the log-probability of token {index} (id "
                f"{int(row.token_ids[index])}) is not finite in update {self.updates}. The weights "
                "have diverged: lower learning_rate or grad_clip and resume from a checkpoint"
            )
        self._engine.backward(result.loss)
        sums = token_sums(
            result.logprobs, result.entropies, tokens, self._loss, objective=self.objective
        ).cpu()
        values = torch.zeros(len(VALUE_SUMS), dtype=torch.float64)
        if result.values is not None and critic is not None and taught is not None:
            values = value_sums(result.values, taught, critic.value_clip)
        apart = (result.logprobs.detach() - tokens.behavior).abs()
        return torch.cat([sums, values]), float(apart.max()) if len(apart) else 0.0

    def _taught(self, row: Row, row_id: int) -> TaughtTokens | None:
        """What a critic learns of `row`; None where there is no critic."""
        if self._critic_settings is None:
            return None
        return TaughtTokens.of(row, row_id, self.device)

    def _values_of(self, row: Row) -> Tensor:
        if self._critic is not None:
            return self._critic.values(self._inputs(row), row.layout)
        values = self._forward(row, temperature=1.0, values_alone=True).values
        assert values is not None
        return values

    @property
    def _warmup(self) -> int:
        """Updates that leave the policy as it is."""
        return 0 if self._critic_settings is None else self._critic_settings.warmup_updates

    def _step(self, *, moves: bool) -> dict[str, float]:
        """The optimizers' steps, the policy's only if it `moves`; their metrics."""
        found: dict[str, float] = {}
        critic, optimizer = self._critic_settings, self.settings.optimizer
        if moves:
            rate = optimizer.rate(self.updates - self._warmup)
            rates = [rate]
            if self._policy.value_head is not None and critic is not None:
                rates.append(critic.optimizer(optimizer).rate(self.updates))
                found["train/value_learning_rate"] = rates[-1]
            norm = self._engine.step(*rates, update=self.updates)
            found |= {"train/gradient_norm": norm, "train/learning_rate": rate}
        if self._critic is not None:
            found |= self._critic.step(self.updates)
        self.updates += 1
        return found

    def _forward(
        self,
        row: Row,
        *,
        temperature: float,
        terms: object = None,
        scale: float = 1.0,
        value_terms: object = None,
        values_alone: bool = False,
    ) -> ChunkedLoss:
        """The policy on one row; without `terms` only its log-probabilities, and no gradient."""
        with torch.set_grad_enabled(terms is not None):
            result: ChunkedLoss = self._engine(
                *self._inputs(row),
                layout=row.layout,
                temperature=temperature,
                terms=terms,
                scale=scale,
                entropy_gradient=self.objective == "policy" and self._loss.entropy > 0,
                value_terms=value_terms,
                values_alone=values_alone,
            )
        return result

    def _inputs(self, row: Row) -> list[Tensor]:
        """Token ids (T,), positions (T,), indices (N,) of trained tokens and of those before."""
        trained = np.flatnonzero(row.weight)
        columns = (row.token_ids, row.positions, trained, row.previous[trained])
        return [torch.from_numpy(np.asarray(one, np.int64)).to(self.device) for one in columns]

    def _tokens(self, row: Row) -> TrainedTokens:
        """Credit and log-probabilities of the trained tokens, with the reference's where needed."""
        trained = np.flatnonzero(row.weight)
        columns = (row.positive, row.negative, row.weight, row.behavior_logprobs)
        positive, negative, weight, behavior = (
            torch.from_numpy(column[trained]).to(self.device) for column in columns
        )
        reference = self._reference_of(row) if self._with_reference else None
        return TrainedTokens(positive, negative, weight, behavior, reference)

    @torch.no_grad()
    def _logit_norms_of(self, row: Row) -> Tensor:
        found, sharper = (
            self._forward(row, temperature=one).logprobs.double()
            for one in (self.temperature, 0.5 * self.temperature)
        )
        return 1.0 - 2.0 * found.exp() + (2.0 * found - sharper).exp()

    def _reference_of(self, row: Row) -> Tensor:
        if self._reference is None:  # with adapters, the policy without them is the reference
            with self._policy.without_adapters():
                return self._forward(row, temperature=self.temperature).logprobs
        result: ChunkedLoss = self._reference(
            *self._inputs(row), layout=row.layout, temperature=self.temperature
        )
        return result.logprobs

    def _identity(self) -> dict[str, object]:
        """What a checkpoint must share with the learner that loads it."""
        lora = self.settings.lora
        return {
            "ranks": self.settings.ranks,
            "zero_stage": self.settings.zero_stage,
            "dtype": self.settings.dtype,
            "lora": None if lora is None else lora.model_dump(mode="json"),
            "critic": None if self._critic_settings is None else self._critic_settings.trunk,
        }

    @property
    def _rank(self) -> int:
        return torch.distributed.get_rank()

    @property
    def _world(self) -> int:
        return torch.distributed.get_world_size()

    def _largest(self, value: float) -> float:
        number = torch.tensor([value], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return float(number.item())

    def _summed(self, values: Tensor) -> Tensor:
        values = values.to(self.device)
        torch.distributed.all_reduce(values)
        return values.cpu()

    def _meet(self) -> None:
        if self._world > 1:
            torch.distributed.barrier()
