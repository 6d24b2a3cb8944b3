"""A judge over HTTP: agreeing, disagreeing, talking nonsense, hanging, gone."""

from __future__ import annotations

import numpy as np
import pytest
from judge_server import Said, judge_server

from agentrl.core.errors import EngineError
from agentrl.core.types import ROOT, StopReason, TrajectoryTree, Turn
from agentrl.engine.http import RefusedError
from agentrl.engine.settings import ChatSettings
from agentrl.evals.judge import Judge, JudgeSettings, judge_samples, judged, submission_of
from agentrl.evals.judge_prompt import Submission, prompt_hash
from agentrl.evals.samples import Key, Sample, TurnText

LAKE = Submission("Which lake?", ("Superior",), "Lake Superior")


def settings(url: str = "http://judge.invalid/v1", **changed) -> JudgeSettings:
    server = {"base_url": url, "model": "wise", "retries": 0, "timeout": 5.0, "backoff": 0.01}
    server |= changed.pop("server", {})
    return JudgeSettings(server=ChatSettings(**server), **changed)


def sample(number: int, answer: str | None = "Superior", **changed) -> Sample:
    tree = TrajectoryTree("t", [1])
    none = np.zeros(0, np.float32)
    turn = Turn(action_ids=np.zeros(0, np.int32), logprobs=none, entropies=none)
    tree.end(tree.add(ROOT, turn), StopReason.TERMINATED)
    given = {
        "key": Key("nq@1", f"t{number}", 0),
        "seed": 0,
        "scores": {"em": 1.0, "reward": 1.0},
        "stop_reason": StopReason.TERMINATED,
        "answers": (answer,),
        "turns": 1,
        "texts": (TurnText(f"I say {answer}", ""),),
        "tree": tree,
    }
    return Sample(**{**given, **changed})


async def asked(say, submission=LAKE, **changed):
    with judge_server(say) as server:
        async with Judge(settings(server.url, **changed)) as judge:
            return await judge.verdict(submission), server.bodies


async def test_a_judge_that_agrees() -> None:
    verdict, (body,) = await asked(lambda _: Said("The same lake.\nGrade: CORRECT"))
    assert verdict == ("correct", "The same lake.\nGrade: CORRECT")
    assert verdict.scores == {"judge": 1.0, "judge_attempted": 1.0, "judge_if_attempted": 1.0}
    assert (body["path"], body["model"]) == ("/v1/chat/completions", "wise")
    assert (body["temperature"], body["max_tokens"]) == (0.0, 2048)
    assert "Lake Superior" in body["messages"][0]["content"]


async def test_a_judge_whose_thoughts_come_apart_from_its_words() -> None:
    parts = [
        {"type": "thinking", "thinking": "Grade: INCORRECT?"},
        {"type": "text", "text": "Grade: CORRECT"},
    ]
    verdict, _ = await asked(lambda _: Said(parts))
    assert verdict.grade == "correct"


async def test_a_judge_that_disagrees_and_one_that_saw_no_attempt() -> None:
    verdict, _ = await asked(lambda _: Said("Grade: INCORRECT"))
    assert verdict.scores == {"judge": 0.0, "judge_attempted": 1.0, "judge_if_attempted": 0.0}
    verdict, _ = await asked(lambda _: Said("Grade: NOT_ATTEMPTED"), prompt="simpleqa")
    assert verdict.scores == {"judge": 0.0, "judge_attempted": 0.0}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Said("As a language model, I like lakes."), "was not understood: its last line"),
        (Said(""), "was not understood: the reply is empty"),
        (Said("Grade: CORR", finish_reason="length"), "was cut off by max_tokens"),
        (Said("the dog ate it", status=500), "did not answer: "),
        (Said("policy", status=400), "did not answer: "),
        (Said(None), "was not understood: the reply is empty"),
        (Said(seconds=1.0), "no answer within 0.2 s"),
    ],
)
async def test_what_a_judge_does_not_grade_is_ungraded_and_never_wrong(said, told) -> None:
    verdict, _ = await asked(lambda _: said, server={"timeout": 0.2} if said.seconds else {})
    assert verdict.grade is None and verdict.scores == {}
    assert told in verdict.told
    new = judged(sample(0), verdict)
    assert (new.failure, new.error) == ("ungraded", verdict.told)


async def test_no_answer_is_not_attempted_without_asking() -> None:
    verdict, bodies = await asked(lambda _: Said(), LAKE._replace(text=" \n"))
    assert verdict.grade == "not_attempted" and bodies == []


async def test_a_judge_that_is_refused_or_gone_ends_the_judging() -> None:
    with pytest.raises(RefusedError, match="401"):
        await asked(lambda _: Said("no key", status=401))
    with judge_server(lambda _: Said("down", status=503)) as server:
        async with Judge(settings(server.url)) as judge:
            for number in range(7):
                assert (await judge.verdict(LAKE._replace(text=f"{number}"))).grade is None
            with pytest.raises(EngineError, match="503"):
                await judge.verdict(LAKE)


async def test_what_was_judged_is_not_asked_again(tmp_path) -> None:
    replies = iter(["nonsense", "Grade: INCORRECT", "Grade: CORRECT", "Grade: CORRECT"])
    prompts = []

    async def ask(prompt: str) -> str:
        prompts.append(prompt)
        return next(replies)

    kept = settings(cache=str(tmp_path / "cache"))
    grades = [(await Judge(kept, ask=ask).verdict(LAKE)).grade for _ in range(3)]
    assert grades == [None, "incorrect", "incorrect"]
    other = LAKE._replace(references=("Huron",))
    assert (await Judge(kept, ask=ask).verdict(other)).grade == "correct"
    wordier = kept.model_copy(update={"prompt": "simpleqa"})
    assert (await Judge(wordier, ask=ask).verdict(LAKE)).grade == "correct"
    assert len(prompts) == 4


async def test_equal_answers_are_asked_once_and_have_one_verdict() -> None:
    replies = iter(["Grade: CORRECT", "Grade: INCORRECT"])
    samples = [sample(n, "Superior" if n < 5 else "Huron") for n in range(6)]
    with judge_server(lambda _: Said(next(replies), seconds=0.05)) as server:
        async with Judge(settings(server.url, server={"concurrency": 1})) as judge:

            def submitted(one: Sample) -> Submission:
                return submission_of(one, {"question": "Which?"}, ("Superior",), "answer")

            found = [pair async for pair in judge_samples(samples, judge, submitted)]
    assert len(server.bodies) == 2
    assert [verdict.grade for _, verdict in found] == ["correct"] * 5 + ["incorrect"]


async def test_samples_are_judged_in_order_and_lost_ones_left_out() -> None:
    samples = [sample(n, str(n)) for n in range(5)]
    samples[2] = sample(2, failure="environment", scores={})
    samples[4] = sample(4, None)

    def say(prompt: str) -> Said:
        right = "\n1\n</submitted" in prompt
        # The first to be asked is the last to be answered.
        return Said(
            "Grade: CORRECT" if right else "Grade: INCORRECT", seconds=0.0 if right else 0.1
        )

    with judge_server(say) as server:
        async with Judge(settings(server.url)) as judge:

            def submitted(one: Sample) -> Submission:
                return submission_of(one, {"question": "Which?"}, ("1",), "answer")

            found = [pair async for pair in judge_samples(samples, judge, submitted)]
    assert [(key.task_id, verdict.grade) for key, verdict in found] == [
        ("t0", "incorrect"),
        ("t1", "correct"),
        ("t3", "incorrect"),
        ("t4", "not_attempted"),
    ]
    new = judged(samples[1], found[1][1])
    assert new.scores == {"em": 1.0, "reward": 1.0, **found[1][1].scores}
    assert new.solved_turn == 0 and judged(samples[0], found[0][1]).solved_turn is None
    # A second judge leaves nothing of the first.
    assert judged(new, found[3][1]).scores == {
        "em": 1.0,
        "reward": 1.0,
        "judge": 0.0,
        "judge_attempted": 0.0,
    }
    assert judged(samples[1], found[1][1], decides=False).solved_turn is None


def test_what_is_submitted_is_the_answer_or_the_whole_last_message() -> None:
    one = sample(0, "Huron", prompt="[user] Which?")
    assert submission_of(one, {"question": "Which?"}, ("x",), "answer") == (
        "Which?",
        ("x",),
        "Huron",
    )
    assert submission_of(one, {}, ("x",), "response") == ("[user] Which?", ("x",), "I say Huron")


def test_the_judge_is_named_with_its_prompt_and_that_ones_hash() -> None:
    assert settings().name == f"wise, prompt answer ({prompt_hash('answer')})"
