"""The judge of a rescoring: asks for all samples, keeps every verdict, and sums them up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from agentrl.evals.folder import write_whole
from agentrl.evals.judge import Judge, Verdict, judge_samples, judged
from agentrl.evals.judge_prompt import Submission, prompt_hash
from agentrl.evals.samples import Key, Sample
from agentrl.graders.verdicts import GradeSummary, summarise_grades

FILE = "verdicts.jsonl"
"""Every verdict of an evaluation's judge, one a line, beside its samples."""


class Judging:
    """Verdicts on samples, in their order; they `decide` unless another score counts."""

    def __init__(self, judge: Judge, *, decides: bool = True) -> None:
        self.judge = judge
        self._decides = decides
        self._verdicts: dict[Key, Verdict] = {}
        self._answers: dict[Key, str] = {}

    async def over(
        self,
        pairs: Sequence[tuple[Sample, Sample]],
        submitted: Callable[[Sample], Submission],
    ) -> list[tuple[Sample, Sample]]:
        """Pairs of a stored sample and its new version, the latter with the judge's scores.

        Raises:
            EngineError: the judge refuses, or is down.
        """
        seen: dict[Key, Submission] = {}

        def noted(sample: Sample) -> Submission:
            seen[sample.key] = submitted(sample)
            return seen[sample.key]

        async for key, verdict in judge_samples((new for _, new in pairs), self.judge, noted):
            self._verdicts[key] = verdict
            self._answers[key] = seen[key].text
        return [(old, self._judged(new)) for old, new in pairs]

    def _judged(self, sample: Sample) -> Sample:
        verdict = self._verdicts.get(sample.key)
        return sample if verdict is None else judged(sample, verdict, decides=self._decides)

    def write(self, path: Path) -> None:
        """Every verdict with who gave it, as JSON lines."""
        settings = self.judge.settings
        by = {
            "judge": settings.server.model,
            "prompt": settings.prompt,
            "prompt_hash": prompt_hash(settings.prompt),
        }
        lines = [
            json.dumps({**key._asdict(), **verdict._asdict(), "answer": self._answers[key], **by})
            for key, verdict in self._verdicts.items()
        ]
        write_whole(path, "".join(f"{line}\n" for line in lines))

    def lines(self) -> Iterator[str]:
        """What came of it, a line for each suite."""
        for suite in dict.fromkeys(key.suite for key in self._verdicts):
            found = [one.grade for key, one in self._verdicts.items() if key.suite == suite]
            graded = [grade for grade in found if grade is not None]
            yield f"{suite}: {_told(summarise_grades(graded), len(found) - len(graded))}"


def _told(found: GradeSummary, ungraded: int) -> str:
    left = f"; {ungraded} that the judge did not grade count in nothing" if ungraded else ""
    if not found.graded:
        return f"nothing was graded{left}"
    given = found.correct_given_attempted
    of_these = "" if given != given else f" ({given:.1%} of those attempted)"
    return (
        f"{found.graded} judged: {found.correct:.1%} correct{of_these}, {found.incorrect:.1%} "
        f"incorrect, {found.not_attempted:.1%} not attempted; F {found.f:.1%}{left}"
    )
