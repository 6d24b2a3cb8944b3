"""`docs/mistakes.md` shows mistakes with exactly the messages that they get: each is made here.

`python tests/test_mistakes_page.py --write` writes the page anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from typer.testing import CliRunner

from agentrl import store
from agentrl.cli.app import app
from agentrl.core.errors import DataError
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task
from agentrl.recipe.load import load
from agentrl.trainer.checkpoint import Checkpoints

PAGE = Path(__file__).resolve().parents[1] / "docs" / "mistakes.md"
HOME = "/home/you/project"
"""What the page shows instead of the temporary folder."""

INTRO = """\
# Mistakes and what they are told

What is wrong, where, what was found and what to do: a recipe, an environment, a file or a
checkpoint that cannot work is refused before anything starts, with exit code 2 and without a
traceback; a policy that calls a tool wrongly reads its mistake as the observation. Every message
here is made by `tests/test_mistakes_page.py`, which also writes this page (`--write`).
"""


class Mistake(NamedTuple):
    """What is wrong, what shows it (lines of a file or an action), the command and the message."""

    title: str
    shown: str
    command: str
    message: str


# -- recipes --------------------------------------------------------------------------------------

RECIPE = """\
name: example
env: {id: demo/calculator, max_turns: 4}
policy: {model: some/model}
sampler: {type: arpo, trajectories: 8, initial: 4}
credit: {type: arpo}
learner:
  optimizer: {learning_rate: 1.0e-4}
train:
  iterations: 20
  tasks_per_iteration: 8
"""

SEALED = """\
from agentrl.envs.demo import GuessEnv


class SealedEnv(GuessEnv):
    forkable = "no"
"""

_REST = "credit: {type: arpo}\nlearner:\n  optimizer: {learning_rate: 1.0e-4}\n"
ARPO = "sampler: {type: arpo, trajectories: 8, initial: 4}\n" + _REST
EEPO = "sampler: {type: eepo}\n" + _REST

RECIPES = (
    ("a misspelt key", "initial: 4", "inital: 4"),
    ("a key of another section", "  iterations: 20", "  learning_rate: 1.0e-4"),
    (
        "a key of another type",
        "{type: arpo, trajectories: 8, initial: 4}",
        "{type: chain, branch_factor: 2}",
    ),
    ("a key twice", "  tasks_per_iteration: 8", "  iterations: 8"),
    ("a number that YAML reads as text", "1.0e-4", "1e-4"),
    ("a number out of range", "tasks_per_iteration: 8", "tasks_per_iteration: 0"),
    ("a wrong choice", "credit: {type: arpo}", "credit: {type: apro}"),
    ("a wrong value", "credit: {type: arpo}", "credit: {type: arpo, attribution: hart}"),
    ("a missing field", "{model: some/model}", "{}"),
    ("an unknown environment", "demo/calculator", "demo/calculater"),
    ("an unknown setting of an environment", "max_turns", "max_turn"),
    ("a wrong value for an environment", "max_turns: 4", "max_turns: many"),
    ("a model that is not there", "some/model", "./warm-start"),
    (
        "a sampler that branches where the environment cannot",
        "{id: demo/calculator, max_turns: 4}",
        '{id: "sealed:SealedEnv"}',
    ),
    (
        "more initial trajectories than there are",
        "trajectories: 8, initial: 4",
        "trajectories: 4, initial: 8",
    ),
    (
        "groups of one",
        "{type: arpo, trajectories: 8, initial: 4}",
        "{type: chain, trajectories: 1}",
    ),
    (
        "sampling that the learner does not follow",
        "credit: {type: arpo}",
        "credit: {type: arpo}\nrollout: {sampling: {top_p: 0.9}}",
    ),
    (
        "a script that is not there",
        "credit: {type: arpo}",
        "credit: {type: arpo}\nengine: {type: scripted, script: orcale}",
    ),
    ("a preset that is not there", "credit: {type: arpo}", "preset: dr_gpro"),
    (
        "a preset that needs to be told what is right",
        "{type: arpo, trajectories: 8, initial: 4}\ncredit: {type: arpo}",
        "{type: chain}\npreset: dapo",
    ),
    ("a credit without its critic", "credit: {type: arpo}", "credit: {type: gae}"),
    ("a critic that nothing reads", "learner:\n", "learner:\n  critic: {trunk: own}\n"),
    (
        "a clip that stops nothing",
        "learner:\n",
        "learner:\n  loss: {type: ppo, level: sequence, clip_high: 0.2}\n",
    ),
    (
        "a loss that cannot say what the credit says",
        "credit: {type: arpo}\nlearner:\n",
        "credit: {type: turn_grpo}\nlearner:\n  loss: {type: logclip}\n",
    ),
    (
        "a misspelt filter",
        "credit: {type: arpo}",
        "credit: {type: arpo}\nfilters: [{type: not_constnt}]",
    ),
    (
        "a filter that is no list",
        "credit: {type: arpo}",
        "credit: {type: arpo}\nfilters: {type: not_constant}",
    ),
    (
        "a refill without a filter",
        "  iterations: 20",
        "  iterations: 20\n  refill: 3",
    ),
    (
        "hints that nobody gives",
        "  iterations: 20",
        "  iterations: 20\n  hints: [0.5]",
    ),
    (
        "sampling ahead with a sampler that changes the engines' weights",
        f"{ARPO}train:\n",
        f"{EEPO}train:\n  max_lag: 1\n",
    ),
    (
        "forgetting where no rank has the weights",
        f"{ARPO}train:\n",
        f"{EEPO}  zero_stage: 3\ntrain:\n",
    ),
    (
        "refilling groups of two halves",
        f"{ARPO}train:\n",
        f"{EEPO}filters: [{{type: not_constant}}]\ntrain:\n  refill: 3\n",
    ),
    (
        "a penalty in rewards that nobody reads",
        "credit: {type: arpo}\nlearner:\n",
        "credit: {type: reinforce, worth: one}\nlearner:\n  kl_in_reward: {beta: 0.01}\n",
    ),
    (
        "an entropy bonus that adapts from nothing",
        "learner:\n",
        "learner:\n  entropy_control: {type: adaptive}\n",
    ),
    (
        "a correction of what nobody sampled",
        "learner:\n",
        "sft: {steps: 500}\nlearner:\n  correction: {type: tis}\n",
    ),
    ("what is no YAML", "credit: {type: arpo}", "credit: {type: arpo"),
)


def recipes() -> Iterator[Mistake]:
    Path("sealed.py").write_text(SEALED)
    for title, old, new in RECIPES:
        assert RECIPE.count(old) == 1
        Path("x.yaml").write_text(RECIPE.replace(old, new))
        before = RECIPE.splitlines()
        shown = [line for line in RECIPE.replace(old, new).splitlines() if line not in before]
        yield told(title, "\n".join(shown), "recipe check x.yaml")
    Path("x.yaml").write_text(RECIPE)
    yield told("a misspelt override", "", "run x.yaml train.iteration=40")
    yield told("a recipe that is not there", "", "run arpo_serach")


def told(title: str, shown: str, command: str, *, typed: str = "") -> Mistake:
    """The mistake with what `agentrl COMMAND` says on the error stream; it must end with 2."""
    result = CliRunner().invoke(app, command.split(), input=typed)
    assert result.exit_code == 2, f"{command}: {result.exit_code}\n{result.output}"
    return Mistake(title, shown, f"agentrl {command}", normalised(result.stderr))


def normalised(message: str) -> str:
    return message.strip().replace(str(Path.cwd()), HOME)


# -- environments ---------------------------------------------------------------------------------

BROKEN = """\
import acme_physics
"""


def environments() -> Iterator[Mistake]:
    Path("broken.py").write_text(BROKEN)
    yield told("a class that is not in its module", "", "env check sealed:SealdEnv")
    yield told("a module that cannot be imported", BROKEN.strip(), "env check broken:BrokenEnv")
    yield told("an unknown setting", "", "env play demo/guess --arg higest=9")
    yield told("an unknown task", "", "env play demo/guess --task train-10")
    yield told("an environment without its data", "", "env check service/tasks --arg domain=retail")
    yield told("a Gymnasium id that is not there", "", "env play gym:FrozenLake-v9")


# -- tool calls -----------------------------------------------------------------------------------


def search(query: str, topk: int = 3) -> str:
    """Find passages."""
    if topk > 10:
        raise ValueError(f"topk is at most 10, got {topk}")
    return "Lima is the capital of Peru."


class SearchingEnv(ToolEnv):
    """A tool with one argument that must be there, one that may, and one thing to refuse."""

    tools = (search,)

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task("one")]

    def prompt(self, task: Task) -> str:
        return "What is the capital of Peru?"

    def score(self, task: Task, answer: str | None) -> dict[str, float]:
        return {"correct": float(answer == "Lima")}


ACTIONS = {
    "xml": (
        ("no call and no answer", "It must be Lima."),
        ("a tool that does not exist", "<serch>capital of Peru</serch>"),
        ("a call that is not closed", "<search>capital of Peru"),
        ("an empty call", "<search></search>"),
        ("two calls in one action", "<search>Peru</search><search>Lima</search>"),
        ("a call and an answer at once", "<search>Peru</search><answer>Lima</answer>"),
        ("text after the call", "<search>Peru</search> It is Lima."),
        ("a result that the policy makes up", "<result>Lima</result><answer>Lima</answer>"),
    ),
    "json": (
        ("no JSON", '<tool_call>{"name": "search", "arguments": {"query": }}</tool_call>'),
        ("no name", '<tool_call>{"arguments": {"query": "Peru"}}</tool_call>'),
        ("a missing argument", '<tool_call>{"name": "search", "arguments": {}}</tool_call>'),
        (
            "a misspelt argument",
            '<tool_call>{"name": "search", "arguments": {"qurey": "Peru"}}</tool_call>',
        ),
        (
            "an argument of another type",
            '<tool_call>{"name": "search", "arguments": {"query": "Peru", "topk": "all"}}'
            "</tool_call>",
        ),
        (
            "a call that the tool refuses",
            '<tool_call>{"name": "search", "arguments": {"query": "Peru", "topk": 99}}</tool_call>',
        ),
    ),
}


def tool_calls() -> Iterator[Mistake]:
    for name, actions in ACTIONS.items():
        for title, action in actions:
            env = SearchingEnv(format=name)  # type: ignore[arg-type]
            yield Mistake(f"{title} ({name})", action, "", observed(env, action))
    once = SearchingEnv(max_tool_calls=1)
    call = "<search>Peru</search>"
    message = observed(once, call, call)
    yield Mistake("more calls than `max_tool_calls: 1` allows (xml)", call, "", message)


def observed(env: ToolEnv, *actions: str) -> str:
    """What the policy reads after the last of `actions`; none of them may end the episode."""

    async def play() -> str:
        await env.reset(Task("one"), seed=0)
        for action in actions:
            result = await env.step(action)
            assert not (result.terminated or result.truncated)
        return "\n".join(message.text for message in result.observation)

    message = asyncio.run(play())
    assert "error: " in message
    return message


# -- corpora and question files -------------------------------------------------------------------

GOOD_ROW = '{"id": "p1", "title": "Lima", "text": "Lima is the capital of Peru."}'
CORPORA = (
    ("a misspelt key", '{"id": "p2", "title": "Oslo", "txt": "The capital of Norway."}'),
    ("an id twice", '{"id": "p1", "title": "Oslo", "text": "The capital of Norway."}'),
    ("an empty text", '{"id": "p2", "title": "Oslo", "text": ""}'),
    ("a value of another type", '{"id": "p2", "title": "Oslo", "text": ["The", "capital"]}'),
    ("a line that is cut", '{"id": "p2", "title": "Oslo", "te'),
    ("a row that is no object", '["p2", "Oslo", "The capital of Norway."]'),
)
GOOD_QUESTION = '{"id": "q1", "question": "Capital of Peru?", "answers": ["Lima"]}'
QUESTIONS = (
    ("answers that are no list", '{"id": "q2", "question": "Of Norway?", "answers": "Oslo"}'),
    ("no answer", '{"id": "q2", "question": "Of Norway?", "answers": []}'),
    ("a key that is missing", '{"id": "q2", "question": "Of Norway?", "answer": ["Oslo"]}'),
    (
        "a number of hops that is none",
        '{"id": "q2", "question": "Of Norway?", "answers": ["Oslo"], "hops": "two"}',
    ),
)


def corpora() -> Iterator[Mistake]:
    serve = "serve retriever --port 0 --corpus"
    for title, row in CORPORA:
        Path("corpus.jsonl").write_text(f"{GOOD_ROW}\n{row}\n")
        yield told(title, row, f"{serve} corpus.jsonl")
    Path("corpus.jsonl").write_text('{"name": "Lima"}\n')
    yield told("a corpus of another kind", '{"name": "Lima"}', f"{serve} corpus.jsonl")
    Path("corpus.jsonl").write_text("")
    yield told("an empty corpus", "", f"{serve} corpus.jsonl")
    whole = gzip.compress(f"{GOOD_ROW}\n".encode())
    Path("corpus.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    yield told("a corpus that was cut while it was copied", "", f"{serve} corpus.jsonl.gz")
    yield told("a corpus that is not there", "", f"{serve} corpora.jsonl")
    Path("corpus.jsonl").write_text(f"{GOOD_ROW}\n")
    play = "env play search/corpus --arg corpus=corpus.jsonl --arg train=questions.jsonl"
    for title, row in QUESTIONS:
        Path("questions.jsonl").write_text(f"{GOOD_QUESTION}\n{row}\n")
        yield told(f"questions: {title}", row, play)


# -- suites ---------------------------------------------------------------------------------------

SUITE = """\
from agentrl.evals.suite import Rows, Suite

OWN = Suite(
    name="own",
    title="Problems of one's own",
    family="math",
    env="math/problems",
    rows={"eval": Rows(file="own.jsonl")},
)
"""


def suites() -> Iterator[Mistake]:
    Path("suites.py").write_text(SUITE)
    Path("own.jsonl").write_text('{"problem": "What is 1 + 1?", "answer": "2"}\n')
    yield told("an unknown suite", "", "suite show gsm8")
    yield told("an older version", "", "suite show gsm8k@0")
    yield told("rows that are not in the folder", "", "suite check gsm8k --data .")
    yield told("rows that no hub has", "", "suite check tau2_retail")
    yield told("a suite of one's own in no module", "", "suite check suits:OWN --data .")
    yield told("a suite of one's own, misspelt", SUITE.strip(), "suite check suites:OWM --data .")


# -- runs and checkpoints -------------------------------------------------------------------------


def write_checkpoint(folder: Path) -> None:
    (folder / "learner").mkdir()
    (folder / "learner" / "weights.bin").write_bytes(bytes(1000))


def runs() -> Iterator[Mistake]:
    Path("x.yaml").write_text(RECIPE)
    yield told("nothing to resume", "", "run x.yaml --resume")
    run = Path("runs/example-20260101-120000")
    checkpoints = Checkpoints(run / "checkpoints")
    state = {"iteration": 10, "recipe": load("x.yaml").model_dump(mode="json")}
    folder = checkpoints.save(10, state, write_checkpoint)
    yield told("another recipe than the run's", "", "run x.yaml seed=7 --resume")
    weights, manifest = folder / "learner" / "weights.bin", folder / "manifest.json"
    weights.write_bytes(bytes(500))
    yield told("a checkpoint's file that is cut", "", "run x.yaml --resume")
    weights.unlink()
    yield told("a checkpoint's file that is gone", "", "run x.yaml --resume")
    manifest.write_text(manifest.read_text()[:20])
    yield told("a manifest that is cut", "", "run x.yaml --resume")
    manifest.unlink()
    yield told("no whole checkpoint in any run", "", "run x.yaml --resume")
    (run / "metrics.jsonl").write_text("")
    yield told("a new run in the folder of another", "", f"run x.yaml --out {run}")
    yield told("a checkpoint in the place of a policy", "", f"eval x.yaml --policy {folder}")
    yield told("a run's folder in the place of a model", "", f"run x.yaml policy.model=./{run}")
    trees = Path("iteration-000001.parquet")
    store.write(trees, [])
    trees.write_bytes(trees.read_bytes()[:-100])
    try:
        store.read(trees)
    except DataError as error:
        yield Mistake(
            "trees that were cut", "", f'agentrl.store.read("{trees}")', normalised(str(error))
        )


# -- the page -------------------------------------------------------------------------------------

SECTIONS: tuple[tuple[str, Callable[[], Iterator[Mistake]], int], ...] = (
    ("Recipes", recipes, 16),
    ("Environments", environments, 5),
    ("Tool calls, as the policy reads them", tool_calls, 12),
    ("Corpora and question files", corpora, 12),
    ("Suites", suites, 6),
    ("Runs and checkpoints", runs, 9),
)
"""Each section's title, what makes its mistakes, and how many there are at least."""


def page() -> str:
    """The page, made in a temporary folder that nothing of the user's is in."""
    parts = [INTRO]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        mock.patch.object(sys, "path", [*sys.path]),
        mock.patch.dict(sys.modules),
    ):
        for title, make, least in SECTIONS:
            mistakes = list(make())
            assert len(mistakes) >= least, title
            parts += [f"## {title}\n", *map(entry, mistakes)]
    return "\n".join(parts)


def entry(mistake: Mistake) -> str:
    """A mistake as Markdown: its title, what was written and asked for, and the message."""
    asked = f"$ {mistake.command}" if mistake.command.startswith("agentrl ") else mistake.command
    block = "\n".join(part for part in (mistake.shown, asked, mistake.message) if part)
    return f"**{mistake.title}**\n\n```text\n{block}\n```\n"


def test_the_page_shows_exactly_what_the_mistakes_are_told() -> None:
    assert PAGE.read_text() == page()


def test_no_message_of_the_page_is_a_traceback_or_names_a_folder_of_this_machine() -> None:
    text = PAGE.read_text()
    assert "Traceback" not in text and "site-packages" not in text
    assert tempfile.gettempdir() + "/" not in text and str(PAGE.parents[1]) not in text


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_mistakes_page.py --write")
    PAGE.write_text(page())
