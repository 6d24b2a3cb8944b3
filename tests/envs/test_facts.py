"""The facts, their split by country, and the oracle's searches."""

import pytest

from agentrl.envs.search import facts


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[facts.Question, ...]]:
    return {"train": facts.questions("train"), "eval": facts.questions("eval", per_hop=150)}


def test_there_are_enough_questions_of_every_length(
    splits: dict[str, tuple[facts.Question, ...]],
) -> None:
    for split, per_hop in (("train", 700), ("eval", 150)):
        hops = [question.hops for question in splits[split]]
        assert [hops.count(n) for n in (1, 2, 3)] == [per_hop] * 3
        assert len({question.id for question in splits[split]}) == len(hops)


def test_no_entity_of_the_evaluation_occurs_in_training(
    splits: dict[str, tuple[facts.Question, ...]],
) -> None:
    home = {item.id: item.home for item in facts.entities()}
    homes = {
        split: {home[id_] for question in items for id_ in question.support}
        for split, items in splits.items()
    }
    assert not homes["train"] & homes["eval"]
    assert len(homes["eval"]) >= 40
    subjects = {
        split: {id_.split("/", 1)[1] for question in items for id_ in question.support}
        for split, items in splits.items()
    }
    assert not subjects["train"] & subjects["eval"]


def test_every_oracle_query_finds_its_passage_first(
    splits: dict[str, tuple[facts.Question, ...]],
) -> None:
    pairs = [
        pair
        for question in splits["eval"]
        for pair in zip(question.queries, question.support, strict=True)
    ]
    ranked = facts.passage_index().search([query for query, _ in pairs], 1)
    assert [hits[0].id for hits in ranked] == [id_ for _, id_ in pairs]


def test_each_hop_needs_its_own_search(splits: dict[str, tuple[facts.Question, ...]]) -> None:
    texts = {passage.id: passage.text for passage in facts.passages()}
    domains = {item.id: item.values.get("domain", "") for item in facts.entities()}
    for question in (*splits["train"], *splits["eval"]):
        assert len(question.support) == len(question.queries) == question.hops
        chain = [texts[id_] for id_ in question.support]
        assert question.answers[0] in chain[-1]
        subjects = [id_.split("/", 1)[1] for id_ in question.support]
        assert subjects[0] in question.text or domains[question.support[0]] in question.text
        for passage, subject in zip(chain, subjects[1:], strict=False):
            # The subject of each later hop is told by the passage before, and not by the question.
            assert subject in passage
            assert f" of {subject}?" not in question.text


def test_every_entity_has_a_name_and_a_passage_of_its_own() -> None:
    entities = facts.entities()
    assert len({item.name.lower() for item in entities}) == len(entities)
    for item, passage in zip(entities, facts.passages(), strict=True):
        assert passage.id == item.id
        assert all(value in passage.text for value in item.values.values())


def test_questions_are_the_same_every_time() -> None:
    first = facts.questions("eval", per_hop=20)
    facts.questions.cache_clear()
    assert facts.questions("eval", per_hop=20) == first
    assert facts.questions("eval", per_hop=20, seed=1) != first


@pytest.mark.parametrize(
    ("population", "words"),
    [
        (2_138_551, "2.1 million"),
        (24_874_500, "25 million"),
        (130_400, "130 thousand"),
        (9_120, "9.1 thousand"),
        (840, "840"),
    ],
)
def test_populations_are_worded_to_a_few_figures(population: int, words: str) -> None:
    assert facts.population_text(population) == words
