"""The squared norm of a log-probability's gradient to the logits, from two temperatures."""

from pathlib import Path

import numpy as np
import pytest
import torch

from agentrl.learner.batch import Row
from agentrl.learner.learner import Learner
from agentrl.learner.logprobs import chunked_logprobs
from agentrl.learner.settings import LearnerSettings
from agentrl.learner.tabular import Table, TableLearner


def by_gradient(logits: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """As autograd finds it, with respect to logits / temperature."""
    scaled = (logits.double() / temperature).detach().requires_grad_()
    chosen = torch.log_softmax(scaled, -1).gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, scaled)
    return gradient.square().sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_two_temperatures_give_it_exactly(temperature: float) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(9, 8).double(), torch.randn(50, 8).double()
    targets = torch.randint(0, 50, (9,))
    found, sharper = (
        chunked_logprobs(hidden, weight, targets, temperature=one)[0]
        for one in (temperature, temperature / 2)
    )
    norms = 1 - 2 * found.exp() + (2 * found - sharper).exp()
    torch.testing.assert_close(norms, by_gradient(hidden @ weight.T, targets, temperature))


def test_a_tables_are_those_of_its_logits_by_hand() -> None:
    table = Table(3)
    table.logits.data[0, 1] = torch.log(torch.tensor([0.5, 0.25, 0.25]).double())
    row = Row.sequence([0, 1, 0, 2], weight=[0, 0, 1, 1])
    (column,) = TableLearner(table, LearnerSettings()).logit_norms([row])
    # 1 - 2 * 1/2 + (1/4 + 1/16 + 1/16) = 3/8; evenly likely: 1 - 2/3 + 1/3.
    np.testing.assert_allclose(column, [0, 0, 3 / 8, 2 / 3], rtol=1e-6)


@pytest.mark.slow
def test_the_learners_are_those_of_full_logits(model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    learner = Learner(LearnerSettings(threads=1, device="cpu"), model_folder, temperature=0.7)
    ids = torch.tensor([[5, 9, 2, 30, 11]])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model_folder)(ids).logits[0, :-1]
    row = Row.sequence(ids[0].tolist(), weight=[0, 0.5, 1, 0, 2])
    (column,) = learner.logit_norms([row])
    wanted = by_gradient(logits, ids[0, 1:], 0.7)
    np.testing.assert_allclose(column[[1, 2, 4]], wanted[[0, 1, 3]], atol=1e-5)
    assert column[0] == column[3] == 0.0
