"""Run folders and evaluation folders, read part by part; what is damaged becomes a note."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from agentrl import store
from agentrl.core.errors import AgentRLError, DataError
from agentrl.core.types import ROOT, Group, TrajectoryTree
from agentrl.credit import AnyCredit, Credit, TurnTable, assign
from agentrl.evals.samples import Key, Sample, TurnText


class Note(NamedTuple):
    """Something that could not be shown: which file, and why."""

    file: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is read at one time: the trees of an iteration or an evaluation, or a suite's samples.

    `lines` are the places in `samples.jsonl` (byte offsets) of a suite's samples.
    """

    label: str
    kind: Literal["train", "eval"]
    iteration: int = 0
    path: Path
    suite: str = ""
    lines: tuple[int, ...] = ()


class TreeText(NamedTuple):
    """The prompt of a tree and the text of its turns."""

    prompt: str
    turns: tuple[TurnText, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The groups of a part.

    `credit` has a row for each turn of all groups in order (None: nothing was trained). `texts`
    and `samples` have an entry for each tree in order, where the part holds some.
    """

    groups: list[Group]
    credit: Credit | None = None
    texts: list[TreeText] | None = None
    samples: list[Sample] | None = None


@dataclass(slots=True, kw_only=True)
class Source:
    """One run or evaluation: what is known of all of it, and `load` for each of its parts.

    `score` names the reward component that decides, per suite ("" is for all others). `model` is
    the folder or hub id whose tokenizer made the tokens.
    """

    folder: Path
    kind: Literal["run", "evaluation"]
    name: str
    parts: list[Part] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    model: str = ""
    score: dict[str, str] = field(default_factory=dict)
    credit_from: Literal["", "stored", "recipe"] = ""

    @property
    def speaks_text(self) -> bool:
        """Whether the policy has no tokens of its own: what its trees hold are bytes and marks."""
        return self.kind == "evaluation" and not self.model

    def load(self, part: Part) -> Loaded | None:
        """The groups of `part`; None, with a note, where its file is damaged."""
        try:
            return self._samples(part) if part.lines else self._trees(part)
        except (
            DataError,
            OSError,
            ValueError,
        ) as error:  # the last: pyarrow's, on a damaged column
            self._note(part.path, str(error))
            return None

    def note(self, file: str, message: str) -> None:
        """Add a note, unless it is there already."""
        note = Note(file, message)
        if note not in self.notes:
            self.notes.append(note)

    def _note(self, path: Path, message: str) -> None:
        name = path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        self.note(str(name), message.removeprefix(f"{path}: "))

    # -- trees of a run -------------------------------------------------------------------------

    def _trees(self, part: Part) -> Loaded:
        groups = store.read(part.path)
        columns = _extra_columns(part.path)
        credit = self._credit(part, groups, columns)
        texts = None
        if "action_text" in columns:
            texts = _stored_texts(groups, columns)
        return Loaded(groups=groups, credit=credit, texts=texts)

    def _credit(
        self, part: Part, groups: list[Group], columns: Mapping[str, list[Any]]
    ) -> Credit | None:
        if part.kind == "eval":
            return None
        if "weight" in columns:
            turns = np.asarray(columns["node"]) != ROOT
            self.credit_from = "stored"
            return Credit(*(np.asarray(columns[name])[turns] for name in _CREDIT))
        method = self.settings.get("credit")
        if method is None:
            return None
        found = _within(self.settings, "learner", "loss")
        loss = found if isinstance(found, Mapping) else {}
        try:
            estimator: AnyCredit = TypeAdapter(AnyCredit).validate_python(method)
            assigned = assign(
                TurnTable.of(groups, with_tokens=estimator.needs_tokens),
                estimator,
                loss.get("aggregation", "token_mean"),
                loss.get("constant"),
            )
        except (ValidationError, AgentRLError, ValueError) as error:
            said = str(error).splitlines()[0]
            self._note(self.folder / "recipe.yaml", f"credit cannot be computed from it ({said})")
            return None
        self.credit_from = self.credit_from or "recipe"
        return assigned.credit

    # -- samples of an evaluation ---------------------------------------------------------------

    def _samples(self, part: Part) -> Loaded:
        samples = []
        with part.path.open("rb") as file:
            for offset in part.lines:
                file.seek(offset)
                try:
                    samples.append(Sample.from_json(json.loads(file.readline())))
                except (KeyError, TypeError, ValueError, AgentRLError) as error:
                    said = f"the line at byte {offset} is no sample ({type(error).__name__})"
                    self._note(part.path, said)
        by_task: dict[str, list[Sample]] = {}
        for sample in sorted(samples, key=lambda one: one.key.number):
            by_task.setdefault(sample.key.task_id, []).append(sample)
        groups = [
            Group(f"{part.suite}/{task}", task, tuple(one.tree for one in found))
            for task, found in by_task.items()
        ]
        ordered = [sample for found in by_task.values() for sample in found]
        texts = [TreeText(sample.prompt, sample.texts) for sample in ordered]
        return Loaded(groups=groups, texts=texts, samples=ordered)


_CREDIT = ("positive", "negative", "weight")
_TEXTS = ("prompt_text", "action_text", "observation_text")


def _extra_columns(path: Path) -> dict[str, list[Any]]:
    """The columns for people and the credit, where the file has them, and the nodes."""
    import pyarrow.parquet as pq

    known = pq.read_schema(path).names
    wanted = [name for name in ("node", *_CREDIT, *_TEXTS) if name in known]
    found: dict[str, list[Any]] = pq.read_table(path, columns=wanted).to_pydict()
    return found


def _stored_texts(groups: list[Group], columns: Mapping[str, list[Any]]) -> list[TreeText]:
    rows = zip(*(columns[name] for name in _TEXTS), strict=True)
    texts = []
    for group in groups:
        for tree in group.trees:
            prompt = next(rows)[0]
            turns = tuple(TurnText(*next(rows)[1:]) for _ in tree.turns)
            texts.append(TreeText(prompt, turns))
    return texts


# -- opening ------------------------------------------------------------------------------------


def open_source(folder: str | Path) -> Source:
    """The run or evaluation in `folder`, its parts listed and not yet read.

    Raises:
        DataError: there is no such folder, or it is neither a run nor an evaluation.
    """
    path = Path(folder).expanduser().resolve()
    if path.suffix == ".parquet" and path.is_file():
        part = Part(label=path.stem, kind="train", path=path)
        return Source(folder=path.parent, kind="run", name=path.stem, parts=[part])
    if not path.is_dir():
        raise DataError(f"{folder}: no such folder of a run or an evaluation")
    if (path / "plan.json").exists() or (path / "samples.jsonl").exists():
        return _evaluation(path)
    source = _run(path)
    if not (source.parts or source.metrics or source.settings or source.results):
        raise DataError(
            f"{folder}: neither a run (no recipe.yaml, metrics.jsonl or trees/) nor an evaluation "
            "(no plan.json or samples.jsonl)"
        )
    return source


def _run(folder: Path) -> Source:
    source = Source(folder=folder, kind="run", name=folder.name)
    source.settings = _mapping(source, folder / "recipe.yaml", yaml.safe_load)
    source.metrics = _rows(source, folder / "metrics.jsonl")
    source.results = _mapping(source, folder / "result.json", json.loads) or None
    source.score = {"": str(_within(source.settings, "eval", "score") or "reward")}
    own = folder / "policy"
    has_own = (own / "tokenizer.json").is_file()
    source.model = str(own if has_own else _within(source.settings, "policy", "model") or "")
    paths = [*folder.glob("trees/*.parquet"), *folder.glob("*.parquet")]
    source.parts = sorted(map(_part, paths), key=lambda part: (part.iteration, part.kind == "eval"))
    return source


def _part(path: Path) -> Part:
    """What the name of a file says: `iteration-000021`, `eval-000020` or anything else."""
    kind, _, number = path.stem.partition("-")
    iteration = int(number) if number.isdecimal() else 0
    if kind == "iteration" and iteration:
        return Part(label=f"iteration {iteration}", kind="train", iteration=iteration, path=path)
    if kind == "eval" and number.isdecimal():
        return Part(label=f"evaluation {iteration}", kind="eval", iteration=iteration, path=path)
    return Part(label=path.stem, kind="eval", path=path)


def _evaluation(folder: Path) -> Source:
    source = Source(folder=folder, kind="evaluation", name=folder.name)
    source.settings = _mapping(source, folder / "plan.json", json.loads)
    source.results = _mapping(source, folder / "results.json", json.loads) or None
    source.model = str(source.settings.get("model") or "")
    for suite in source.settings.get("suites") or ():
        if isinstance(suite, Mapping) and {"name", "version", "score"} <= suite.keys():
            source.score[f"{suite['name']}@{suite['version']}"] = str(suite["score"])
    path = folder / "samples.jsonl"
    if not path.is_file():
        source.notes.append(Note(path.name, "not there yet: no sample has finished"))
        return source
    lines: dict[str, dict[Key, int]] = {suite: {} for suite in source.score}
    with path.open("rb") as file:
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                try:
                    data = json.loads(line)
                    key = Key(data["suite"], data["task_id"], data["number"])
                    lines.setdefault(key.suite, {})[key] = offset
                except (KeyError, TypeError, ValueError, AgentRLError) as error:
                    said = f"line {number} is no sample and is left out ({type(error).__name__})"
                    source.notes.append(Note(path.name, said))
            else:
                source.notes.append(Note(path.name, f"line {number} was cut by a kill"))
            offset += len(line)
    source.parts = [
        Part(label=suite, kind="eval", path=path, suite=suite, lines=tuple(found.values()))
        for suite, found in lines.items()
        if found
    ]
    return source


def _within(settings: Mapping[str, Any], *keys: str) -> object:
    found: object = settings
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _mapping(source: Source, path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """What `parse` makes of the file, or nothing, with a note where it is damaged."""
    if not path.is_file():
        return {}
    try:
        found = parse(path.read_text())
    except (yaml.YAMLError, ValueError, OSError) as error:
        source.notes.append(Note(path.name, f"damaged ({str(error).splitlines()[0]})"))
        return {}
    if not isinstance(found, dict):
        source.notes.append(Note(path.name, f"holds a {type(found).__name__}, not settings"))
        return {}
    return found


def _rows(source: Source, path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file that are whole."""
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                row["iteration"] = int(row["iteration"])
                rows.append(row)
            except (ValueError, KeyError, TypeError):
                said = f"line {number} is no row of metrics and is left out"
                source.notes.append(Note(path.name, said))
    return rows


def path_score(tree: TrajectoryTree, path: tuple[int, ...], name: str) -> float:
    """Sum of the reward component `name` along a path; "reward" is the return.

    0.0 where no turn has it, as a trajectory that `rollout.limits` ended counts in an evaluation.
    """
    if name == "reward":
        return float(sum(tree.turns[node].reward for node in path))
    return float(sum(tree.turns[node].rewards.get(name, 0.0) for node in path))
