"""What a recipe says about the loss: one kernel of the field, and what all of them share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from agentrl.core.settings import Settings
from agentrl.credit.aggregate import Aggregation
from agentrl.learner.kl_control import check_start

Level: TypeAlias = Literal["token", "turn", "sequence", "sequence_token"]

WIDEST_MEAN_CLIP = 0.1
"""Largest clip range around a mean over a whole trajectory's tokens, which hardly moves."""


class LossSettings(Settings):
    """What every loss has: divisor, penalty against the reference and entropy bonus.

    `aggregation` sums the token terms over the global batch and divides:

        token_mean     by the trained tokens (DAPO, arXiv:2503.14476)
        token_sum      by nothing: a batch with less to train moves the policy less (verl)
        turn_mean      each turn its tokens' mean, by the turns: all decisions alike, long or short
        turn_sum       each turn its tokens' sum, by the turns
        sequence_mean  each trajectory its tokens' mean, by the trajectories (GRPO)
        sequence_sum   each trajectory its tokens' sum, by the trajectories (REINFORCE, RLOO,
                       arXiv:2402.14740; LUSPO with a loss of trajectories)
        constant       by `constant` tokens a trajectory (Dr.GRPO, arXiv:2503.20783)

    A turn that several trajectories share is one of each.

    `kl` weighs a penalty against the reference; at 0.0 there is none in memory. `kl_estimator`: k2
    and k3+ have the gradient of KL(policy ‖ reference), k3 (GRPO's) that of KL(reference ‖ policy).
    With a `kl_target` in nats of a trajectory a controller moves the weight after each iteration,
    as that of `learner.kl_in_reward` does; measured on what was sampled, by k1, for which the
    reference evaluates an iteration's tokens once more. `entropy` weighs a bonus.
    """

    clips: ClassVar[tuple[str, ...]] = ()
    """Sides on which the kernel clips, for the metrics: of "low", "high" and "dual"."""
    aggregation: Aggregation = "token_mean"
    constant: float | None = Field(default=None, gt=0.0)
    kl: float = Field(default=0.0, ge=0.0)
    kl_estimator: Literal["k2", "k3", "k3+"] = "k3+"
    kl_target: float | None = Field(default=None, gt=0.0)
    kl_horizon: int = Field(default=10_000, ge=1)
    entropy: float = Field(default=0.0, ge=0.0)

    @property
    def two_pass(self) -> bool:
        """Whether a token's gradient depends on other tokens (see `agentrl.learner.levels`)."""
        return False

    @property
    def one_advantage(self) -> bool:
        """Whether the loss has room for one advantage a trajectory only."""
        return False

    @property
    def trains_all(self) -> bool:
        """Whether a token has a gradient even where no advantage says anything."""
        return self.kl > 0 or self.entropy > 0

    @field_validator("kl_estimator", mode="before")
    @classmethod
    def _check_estimator(cls, estimator: object) -> object:
        if estimator == "k1":
            raise ValueError(
                "'k1' as a term of the loss has a gradient that is 0 on average, so it only adds "
                "noise. Use 'k3+' or 'k2', which have that of KL(policy ‖ reference), or charge "
                "k1 in the reward with learner.kl_in_reward"
            )
        return estimator

    @model_validator(mode="after")
    def _check_controller(self) -> LossSettings:
        check_start(self.kl, self.kl_target, name="kl")
        return self

    @model_validator(mode="after")
    def _check_constant(self) -> LossSettings:
        if self.aggregation == "constant" and self.constant is None:
            raise ValueError(
                "aggregation 'constant' needs `constant`, the tokens that a trajectory is "
                "divided by (the limit on its length, say)"
            )
        if self.aggregation != "constant" and self.constant is not None:
            raise ValueError(
                f"`constant` is read only with aggregation 'constant', not {self.aggregation!r}"
            )
        return self


class PpoLoss(LossSettings):
    """PPO-clip (arXiv:1707.06347, eq. 7) on the importance ratio of a token or of more.

    With A an advantage and x the ratio of the policy to the behaviour policy:

        element = -min(x A, clip(x, 1 - clip_low, 1 + clip_high) A)
        A < 0:    at most dual_clip |A|

    `clip_high` above `clip_low` is clip-higher (DAPO, arXiv:2503.14476), `dual_clip` that of
    arXiv:1912.09729 (TRL's `delta` is the same). `entropy_balanced` keeps the gradient of what
    clip_high stops: -(1 + clip_high) A for each token there, at the same value (AEPO,
    arXiv:2510.14545). `level` says what x is:

        token           exp(l_t), l_t the token's log-ratio
        turn            exp(mean of l over the turn), the gradient that of the single token
        sequence        exp(mean of l over the trajectory)                   (GSPO)
        sequence_token  the same value, the gradient that of the single token (GSPO-token)

    GSPO: arXiv:2507.18071, with clip_low 3.0e-4 and clip_high 4.0e-4; turn: AT²PO,
    arXiv:2601.04767, with 3.0e-3 and 4.0e-3. Every token of a trajectory has its element, so
    "sequence_mean" gives the mean over trajectories ("turn_mean" counts each as often as it has
    turns). Where all tokens of a trajectory have one
    advantage, the two sequence levels are the same; where they differ, only "sequence_token" is
    defined. A mean is over sampled tokens, however many turns there are (Tree-GRPO's released turn
    ratio drops the turns after the ninth).
    """

    clips: ClassVar[tuple[str, ...]] = ("low", "high", "dual")
    type: Literal["ppo"] = "ppo"
    level: Level = "token"
    clip_low: float = Field(default=0.2, gt=0.0, le=1.0)
    clip_high: float = Field(default=0.28, gt=0.0)
    dual_clip: float | None = None
    entropy_balanced: bool = False

    @property
    def two_pass(self) -> bool:
        """See `LossSettings`."""
        return self.level != "token"

    @property
    def one_advantage(self) -> bool:
        """See `LossSettings`."""
        return self.level == "sequence"

    @model_validator(mode="after")
    def _check(self) -> PpoLoss:
        if self.dual_clip is not None and self.dual_clip <= 1.0 + self.clip_high:
            raise ValueError(
                f"dual_clip must be above 1 + clip_high = {1.0 + self.clip_high:g}, got "
                f"{self.dual_clip:g}: a lower cap would stop what the ordinary clip still trains"
            )
        if self.level.startswith("sequence"):
            widest = max(self.clip_low, self.clip_high)
            if widest > WIDEST_MEAN_CLIP:
                raise ValueError(
                    f"a clip range of {widest:g} stops nothing at level {self.level!r}, whose "
                    "ratio is a mean over a whole trajectory; set clip_low: 3.0e-4 and clip_high: "
                    f"4.0e-4 as GSPO does (at most {WIDEST_MEAN_CLIP:g})"
                )
        return self


class CispoLoss(LossSettings):
    """CISPO: the importance ratio is capped, and no token loses its gradient (arXiv:2506.13585).

    With x the token's ratio, sg(.) without gradient:

        element = -sg(clip(x, 1 - clip_low, 1 + clip_high)) A log p

    `clip_low` 1.0 is no lower bound, as in the paper; verl bounds both sides. The default cap of
    5 is ScaleRL's (TRL's `epsilon_high` is 1 + clip_high here); the paper names none.
    """

    clips: ClassVar[tuple[str, ...]] = ("low", "high")
    type: Literal["cispo"] = "cispo"
    clip_low: float = Field(default=1.0, gt=0.0, le=1.0)
    clip_high: float = Field(default=4.0, gt=0.0)


class SapoLoss(LossSettings):
    """SAPO: a soft gate on the token ratio in place of a clip (arXiv:2511.20347).

    With x the token's ratio and tau = `tau_positive` for A > 0, `tau_negative` else:

        element = -(4 / tau) sigmoid(tau (x - 1)) A

    whose slope at x = 1 is that of -x A. The higher temperature of negative advantages lets their
    gradient fade sooner.
    """

    type: Literal["sapo"] = "sapo"
    tau_positive: float = Field(default=1.0, gt=0.0)
    tau_negative: float = Field(default=1.05, gt=0.0)


class LogclipLoss(LossSettings):
    """GMPO: the geometric mean of clipped token ratios of a trajectory (arXiv:2507.20673).

    With l_t the tokens' log-ratios, n of them, and one advantage A for all:

        c_t     = min(l_t, clip_high) for A > 0, max(l_t, -clip_low) for A < 0
        x       = exp(sum of c_t / n)
        element = -x A

    The gradient flows through the tokens that are not clipped. Use it with `aggregation:
    sequence_mean` for the paper's mean over trajectories; one without a token is left out (verl
    counts it).
    """

    clips: ClassVar[tuple[str, ...]] = ("low", "high")
    type: Literal["logclip"] = "logclip"
    clip_low: float = Field(default=0.4, gt=0.0)
    clip_high: float = Field(default=0.4, gt=0.0)

    @property
    def two_pass(self) -> bool:
        """See `LossSettings`."""
        return True

    @property
    def one_advantage(self) -> bool:
        """See `LossSettings`."""
        return True


class DppoLoss(LossSettings):
    """DPPO: tokens are masked by how far their probability has moved (arXiv:2602.04879).

    With x the token's ratio, p its probability and q that under the behaviour policy:

        element = -sg(min(x, 20)) A log p   where it is kept, else 0
        "tv":  kept where p - q <= clip_high (A > 0), q - p <= clip_low (A < 0)
        "kl":  kept where KL(q ‖ p) of the two-point distributions (q, 1 - q) and (p, 1 - p) is
               within the same bounds, and always where the token moves towards q

    So a rare token may change by a large ratio. Bounds that are None are the paper's: 0.15 for
    "tv", 0.05 for "kl".
    """

    clips: ClassVar[tuple[str, ...]] = ("low", "high")
    type: Literal["dppo"] = "dppo"
    divergence: Literal["tv", "kl"] = "tv"
    clip_low: float | None = Field(default=None, gt=0.0)
    clip_high: float | None = Field(default=None, gt=0.0)

    @property
    def bounds(self) -> tuple[float, float]:
        """The lower and the upper bound."""
        paper = 0.15 if self.divergence == "tv" else 0.05
        return self.clip_low or paper, self.clip_high or paper


class QuadraticLoss(LossSettings):
    """A policy gradient with a quadratic pull back to the behaviour policy (verl's `dro`).

    With l = log p - log q the token's log-ratio:

        element = -(A log p - (beta / 2) l²)

    The step that direct reward optimisation (arXiv:2405.19107) takes on the policy's side, with
    the advantage of the credit method in place of its own value function.
    """

    type: Literal["quadratic"] = "quadratic"
    beta: float = Field(default=0.1, gt=0.0)

    @property
    def trains_all(self) -> bool:
        """See `LossSettings`."""
        return True


class GvpoLoss(LossSettings):
    """GVPO: regression of log-ratios onto advantages within whole groups (arXiv:2504.19599).

    With S_i = beta x (sum of trajectory i's log-ratios), A_i its advantage, means over the n
    trajectories of its group that train, G groups with n > 1:

        loss = (1 / G) sum over groups of sum_i [(S_i - mean S) - (A_i - mean A)]² / (2 (n - 1))

    The paper's A_i - mean A is the return minus its group's mean: `credit.scale: none`. Whether
    mean S carries a gradient does not matter: the brackets sum to 0. Any policy may have sampled,
    so there is no ratio to clip. The divisor is the number of groups; `aggregation` is that of the
    penalty and the bonus alone.
    """

    type: Literal["gvpo"] = "gvpo"
    beta: float = Field(default=0.1, gt=0.0)

    @property
    def trains_all(self) -> bool:
        """See `LossSettings`."""
        return True

    @property
    def two_pass(self) -> bool:
        """See `LossSettings`."""
        return True

    @property
    def one_advantage(self) -> bool:
        """See `LossSettings`."""
        return True


class VespoLoss(LossSettings):
    """VESPO: a smooth weight on the product of a trajectory's ratios (arXiv:2602.10693).

    With W = exp(sum of the trajectory's log-ratios), not divided by its length:

        element = -sg(phi(W)) A log p,   phi(W) = exp(lambda + k ln W - lambda W)

    and (k, lambda) = (2, 3) for A > 0, (3, 2) for A < 0, as released.
    """

    type: Literal["vespo"] = "vespo"

    @property
    def two_pass(self) -> bool:
        """See `LossSettings`."""
        return True

    @property
    def one_advantage(self) -> bool:
        """See `LossSettings`."""
        return True


class ReinforceLoss(LossSettings):
    """The plain policy gradient: element = -A log p (Williams, 1992), without a ratio.

    Exact for the first update on what was sampled; later ones have no importance correction.
    """

    type: Literal["reinforce"] = "reinforce"


AnyLoss: TypeAlias = Annotated[
    PpoLoss
    | CispoLoss
    | SapoLoss
    | LogclipLoss
    | DppoLoss
    | QuadraticLoss
    | GvpoLoss
    | VespoLoss
    | ReinforceLoss,
    Field(discriminator="type"),
]
"""Every loss that a recipe can name."""
