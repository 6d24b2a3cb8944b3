"""An evaluation as logs of inspect_ai: its viewer and its tools then open ours.

The format (version 2) is written from its description, since inspect_ai is not needed to write it:
a `.eval` file is a zip of JSON files (`header.json`, `summaries.json`, a file for each sample), a
`.json` file holds the same in one. One log is one suite; an epoch is a sample's number plus one.
Text is kept as it is, but for lone surrogates, which become U+FFFD: the format refuses them.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from agentrl.core.errors import DataError, nearest
from agentrl.evals.folder import EvalFolder
from agentrl.evals.inspect_sample import plain, sample_entry, summary_entry
from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.evals.results import Estimate, Results, SuiteResult
from agentrl.evals.samples import Sample, final_samples
from agentrl.evals.shown_text import encodable

FORMAT_VERSION = 2
SUFFIXES = (".eval", ".json")
_EPOCH = "1970-01-01T00:00:00+00:00"


def export_inspect(folder: Path, out: Path, *, suite: str = "") -> list[Path]:
    """Write the evaluation in `folder` as logs of inspect_ai; returns them.

    `out` is one log where it ends in `.eval` or `.json`: of the only suite, or of `suite` (a name
    or a tag). Otherwise it is a folder, which gets a `.eval` file for each suite.

    Raises:
        DataError: the folder holds no results, or which suite is meant is not clear.
    """
    results = EvalFolder(folder).read_results()
    chosen = _chosen(results, suite)
    single = out.suffix in SUFFIXES
    if single and len(chosen) > 1:
        names = ", ".join(part.suite for part in chosen)
        raise DataError(
            f"{folder} has several suites ({names}) and a log of inspect_ai has one: name it with "
            f"--suite, or let --out be a folder"
        )
    written: dict[str, Path] = {}
    for part in chosen:
        written[part.suite] = out if single else out / _file_name(results, part)
    log = folder / "samples.jsonl"
    found = final_samples(log) if log.is_file() else iter(())
    for tag, samples in groupby(found, key=lambda one: one.key.suite):
        if tag in written:
            part = next(one for one in chosen if one.suite == tag)
            _write_log(written[tag], results, part, samples)
    for part in chosen:
        if not part.scored and not part.failures:
            _write_log(written[part.suite], results, part, iter(()))
    return list(written.values())


def _chosen(results: Results, suite: str) -> list[SuiteResult]:
    if not suite:
        return list(results.suites)
    found = [one for one in results.suites if suite in (one.suite, one.suite.partition("@")[0])]
    if not found:
        known = [one.suite for one in results.suites]
        raise DataError(
            f"the evaluation has no suite {suite!r}.{nearest(suite, known)} It has: "
            f"{', '.join(known)}."
        )
    return found


def _file_name(results: Results, part: SuiteResult) -> str:
    """The name that inspect_ai itself would give: time, task and id."""
    time, name = (
        "".join(c if c.isalnum() else "-" for c in text) for text in (_created(results), part.suite)
    )
    return f"{time}_{name}_{_eval_id(results, part)}.eval"


def _write_log(path: Path, results: Results, part: SuiteResult, samples: Iterator[Sample]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    planned = next(one for one in results.plan.suites if one.tag == part.suite)
    names = [name for name in part.estimates if "@" not in name and "^" not in name]
    header = _header(results, part, planned, names)
    # Ids of the dataset are known at the end only, and the header is written after the samples.
    ids: dict[str, None] = {}
    with _whole(path) as file:
        if path.suffix == ".json":
            _write_json(file, header, _entries(samples, results.plan, planned, ids), ids)
        else:
            _write_zip(file, header, _entries(samples, results.plan, planned, ids), ids)


def _entries(
    samples: Iterator[Sample], plan: EvalPlan, planned: PlannedSuite, ids: dict[str, None]
) -> Iterator[dict[str, Any]]:
    for sample in samples:
        if sample.key.number < planned.samples:
            entry = sample_entry(sample, plan, planned)
            ids[entry["id"]] = None
            yield entry


def _write_zip(
    file: IO[bytes],
    header: dict[str, Any],
    entries: Iterator[dict[str, Any]],
    ids: Mapping[str, None],
) -> None:
    summaries = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in entries:
            archive.writestr(f"samples/{entry['id']}_epoch_{entry['epoch']}.json", _json(entry))
            summaries.append(summary_entry(entry))
        header["eval"]["dataset"]["sample_ids"] = list(ids)
        start = {name: header[name] for name in ("version", "eval", "plan")}
        archive.writestr("_journal/start.json", _json(start))
        archive.writestr("summaries.json", _json(summaries))
        archive.writestr("header.json", _json(header))


def _write_json(
    file: IO[bytes],
    header: dict[str, Any],
    entries: Iterator[dict[str, Any]],
    ids: Mapping[str, None],
) -> None:
    """One object, samples last; they are kept in memory, since the ids stand before them."""
    samples = ",".join(_json(entry) for entry in entries)
    header["eval"]["dataset"]["sample_ids"] = list(ids)
    file.write(f'{_json(header)[:-1]},"samples":[{samples}]}}'.encode())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears at `path` once it is written to its end."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# -- the header -----------------------------------------------------------------------------------


def _header(
    results: Results, part: SuiteResult, planned: PlannedSuite, names: Sequence[str]
) -> dict[str, Any]:
    plan, origin = results.plan, results.provenance
    config = {
        "temperature": planned.temperature,
        "max_tokens": planned.max_tokens_per_turn,
        "top_p": plan.rollout.sampling.top_p,
    }
    return {
        "version": FORMAT_VERSION,
        "status": "cancelled" if part.missing else "success",
        "eval": _spec(results, part, planned, names, config),
        "plan": {
            "name": "agentrl",
            "steps": [{"solver": planned.env, "params": plain(planned.args)}],
            "config": config,
        },
        "results": {
            "total_samples": part.planned,
            "completed_samples": part.scored,
            "scores": _scores(part, names),
            "headline": {"score": part.score, "metric": "mean"} if names else None,
        },
        "stats": {
            "started_at": origin.started,
            "completed_at": origin.ended,
            "model_usage": {plan.policy: _usage(part)},
        },
    }


def _spec(
    results: Results,
    part: SuiteResult,
    planned: PlannedSuite,
    names: Sequence[str],
    config: Mapping[str, float],
) -> dict[str, Any]:
    plan, origin = results.plan, results.provenance
    identity = _eval_id(results, part)
    spec = {
        "eval_id": identity,
        "run_id": _digest(results.plan.model_dump_json(), origin.started),
        "created": _created(results),
        "task": planned.name,
        "task_id": identity,
        "task_version": planned.version,
        "task_display_name": part.title or part.suite,
        "task_args": plain(planned.args),
        "task_args_passed": plain(planned.args),
        "solver": planned.env,
        "dataset": {
            "name": part.suite,
            "samples": part.tasks,
            "sample_ids": [],
            "shuffled": False,
        },
        "model": encodable(plan.policy),
        "model_generate_config": dict(config),
        "model_args": plain({"model": plan.model, "engine": plan.engine.type}),
        "config": {
            "epochs": planned.samples,
            "epochs_reducer": ["mean"],
            "turn_limit": planned.max_turns,
            "fail_on_error": False,
        },
        "packages": {"agentrl": origin.agentrl, **origin.packages},
        "metadata": plain(
            {
                "command": origin.command,
                "rescored": origin.rescored,
                "seed": plan.seed,
                "platform": origin.platform,
                "python": origin.python,
                "if_failures_were_wrong": part.if_failures_were_wrong,
                "failures": dict(part.failures),
                "missing": part.missing,
                "cost": part.cost,
            }
        ),
        "scorers": [{"name": name} for name in names],
    }
    if origin.commit:
        spec["revision"] = {"type": "git", "origin": "", "commit": origin.commit}
    return spec


def _scores(part: SuiteResult, names: Sequence[str]) -> list[dict[str, Any]]:
    """A score for each component; the deciding one also has the measures over several samples."""
    scores = []
    for name in names:
        metrics = _metrics("", part.estimates[name])
        if name == part.score:
            for other, one in part.estimates.items():
                if other not in names:
                    metrics |= _metrics(other, one)
        scores.append(
            {
                "name": name,
                "scorer": name,
                "scored_samples": part.scored,
                "unscored_samples": part.planned - part.scored,
                "metrics": metrics,
            }
        )
    return scores


def _metrics(name: str, one: Estimate) -> dict[str, Any]:
    """The value and, of a component (`name` empty), its error and interval; unknown: none."""
    if one.value is None:
        return {}
    about = {"tasks": one.tasks, "interval": one.method, "low": one.low, "high": one.high}
    known = {name or "mean": one.value}
    if not name:
        beside = {"stderr": one.error, "ci95_low": one.low, "ci95_high": one.high}
        known |= {key: value for key, value in beside.items() if value is not None}
    return {key: {"name": key, "value": value, "metadata": about} for key, value in known.items()}


def _usage(part: SuiteResult) -> dict[str, Any]:
    def total(name: str) -> int:
        found = part.amounts.get(name)
        return 0 if found is None else round(found.total)

    read, generated = total("prompt_tokens"), total("generated_tokens")
    usage = {"input_tokens": read, "output_tokens": generated, "total_tokens": read + generated}
    return usage if part.cost is None else {**usage, "total_cost": part.cost}


def _created(results: Results) -> str:
    return results.provenance.started or results.provenance.ended or _EPOCH


def _eval_id(results: Results, part: SuiteResult) -> str:
    return _digest(part.suite, results.plan.model_dump_json(), results.provenance.started)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:22]
