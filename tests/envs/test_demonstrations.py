"""The scripted expert in made-up worlds."""

from itertools import islice

from agentrl.core.env import Demonstration
from agentrl.envs.search import demonstrations, facts


def shown(expert: demonstrations.Expert, count: int, *, seed: int = 0) -> list[Demonstration]:
    return list(islice(expert.demonstrations(seed), count))


def test_the_same_seed_gives_the_same_demonstrations() -> None:
    expert = demonstrations.Expert()
    assert shown(expert, 50, seed=5) == shown(expert, 50, seed=5)
    assert shown(expert, 50, seed=5) != shown(expert, 50, seed=6)


def test_every_search_copies_a_name_that_was_read_before() -> None:
    for one in shown(demonstrations.Expert(), 300):
        read = one.prompt[0].text.removesuffix("?")
        for action, observation in one.turns[:-1]:
            subject = action.removeprefix("<search>").removesuffix("</search>").split(" of ", 1)[1]
            assert subject.removeprefix("domain ") in read
            read = observation[0].text


def test_the_answer_stands_in_the_last_passage() -> None:
    for one in shown(demonstrations.Expert(), 300):
        *searches, (action, observation) = one.turns
        value = action.removeprefix("<answer> ").removesuffix("</answer>")
        assert value in searches[-1][1][0].text
        assert observation == ()


def test_real_demonstrations_are_training_questions() -> None:
    texts = {question.text for question in facts.questions("train")}
    for one in shown(demonstrations.Expert(real=1.0), 300):
        assert one.prompt[0].text in texts


def test_no_name_of_the_evaluation_is_shown() -> None:
    names = {item.name for item in facts.entities() if facts.split_of(item.home) == "eval"}
    # Names that also are ordinary words, or that two halves of other names happen to spell.
    kept = {name for name in names if len(name) > 9}
    for one in shown(demonstrations.Expert(), 300):
        text = one.prompt[0].text + "".join(o.text for _, told in one.turns for o in told)
        assert not [name for name in kept if name in text]


def test_a_hasty_expert_answers_with_what_it_has() -> None:
    three = (0.0, 0.0, 1.0)
    hasty = shown(demonstrations.Expert(hops=three, hasty=1.0), 50)
    careful = shown(demonstrations.Expert(hops=three), 50)
    assert {len(one.turns) for one in hasty} == {2}
    assert {len(one.turns) for one in careful} == {4}
