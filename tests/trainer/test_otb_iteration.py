"""An iteration with the optimal token baseline: the learner is asked before credit is assigned."""

import numpy as np

from agentrl.core.types import ROOT, Group
from agentrl.credit import OtbCredit, TurnTable, assign
from agentrl.learner.tabular import Table, TableLearner
from agentrl.recipe.schema import Recipe
from agentrl.testing.trees import chains, tree_of
from agentrl.trainer.improve import Improver
from agentrl.trainer.second_look import unweighed

RECIPE = {
    "name": "x",
    "env": {"id": "demo/guess"},
    "policy": {"model": "m"},
    "credit": {"type": "otb"},
    "learner": {"optimizer": {"learning_rate": 0.1, "warmup_steps": 0}},
    "train": {"tasks_per_iteration": 1},
}


async def test_on_a_uniform_policy_the_norms_are_equal_and_the_baseline_is_the_mean() -> None:
    said = Recipe.model_validate(RECIPE)
    learner = TableLearner(Table(40), said.learner)
    tree = tree_of([ROOT, 0, 0], {1: 1.0}, tokens=[2, 1, 1])
    found = await Improver(said, learner).improve([Group("g", "g", (tree,))])
    np.testing.assert_allclose(found.credit.positive, [0.5, 0.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(found.credit.negative, [-0.5, 0.0, -0.5], rtol=1e-6)
    assert learner.updates == 1


async def test_norms_that_differ_move_the_baseline_as_the_definition_says() -> None:
    said = Recipe.model_validate(RECIPE)
    learner = TableLearner(Table(40), said.learner)
    # After the prompt's words 2, 3 the first answer (0) has probability 1/2, the other (10) little.
    learner.table.logits.data[2, 3, 0] = np.log(39.0)
    trees = (tree_of([ROOT], {0: 1.0}, tokens=1), tree_of([ROOT, ROOT], {}, tokens=1))
    found = await Improver(said, learner).improve([Group("g", "g", trees)])
    rest = 0.5 / 39
    right = 1 - 2 * 0.5 + 0.25 + 39 * rest**2
    also_right = right  # The second tree's first answer is the same word, and earned nothing.
    wrong = 1 - 2 * rest + 0.25 + 39 * rest**2
    base = right / (right + also_right + wrong)
    np.testing.assert_allclose(found.credit.positive, [1 - base, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(found.credit.negative, [0, -base, -base], rtol=1e-5)


def test_a_dry_run_needs_no_learner() -> None:
    table = unweighed(TurnTable.of([chains([1.0])]))
    credit = assign(table, OtbCredit(singleton="raw")).credit
    assert credit.positive.tolist() == [1.0, 1.0] and not credit.negative.any()
