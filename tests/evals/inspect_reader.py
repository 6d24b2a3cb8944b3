"""Run by inspect_ai's own interpreter: reads logs and prints what it finds as JSON."""

import json
import sys

from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_samples


def described(log, samples):
    return {
        "status": log.status,
        "version": log.version,
        "task": log.eval.task,
        "task_version": log.eval.task_version,
        "model": log.eval.model,
        "epochs": log.eval.config.epochs,
        "ids": log.eval.dataset.sample_ids,
        "total": log.results.total_samples,
        "completed": log.results.completed_samples,
        "scores": {
            score.name: {name: metric.value for name, metric in score.metrics.items()}
            for score in log.results.scores
        },
        "unscored": [score.unscored_samples for score in log.results.scores],
        "usage": {name: usage.model_dump() for name, usage in log.stats.model_usage.items()},
        "samples": [
            {
                "id": one.id,
                "epoch": one.epoch,
                "scores": None
                if one.scores is None
                else {name: score.as_float() for name, score in one.scores.items()},
                "answer": one.scores["correct"].answer if one.scores else None,
                "error": None if one.error is None else one.error.message,
                "limit": None if one.limit is None else one.limit.type,
                "retries": len(one.error_retries or ()),
                "completion": one.output.completion,
                "messages": [[m.role, m.text] for m in one.messages],
                "calls": [
                    [call.function, call.arguments, call.id]
                    for m in one.messages
                    for call in getattr(m, "tool_calls", None) or ()
                ],
                "answered": [m.tool_call_id for m in one.messages if m.role == "tool"],
                "input": one.input if isinstance(one.input, str) else [m.text for m in one.input],
            }
            for one in sorted(samples, key=lambda one: (one.id, one.epoch))
        ],
    }


if __name__ == "__main__":
    found = {}
    for info in list_eval_logs(sys.argv[1], formats=["eval", "json"]):
        whole = read_eval_log(info.name)
        one_by_one = list(
            read_eval_log_samples(info.name, all_samples_required=whole.status == "success")
        )
        assert len(one_by_one) == len(whole.samples)
        header = read_eval_log(info.name, header_only=True)
        assert header.results == whole.results
        found[info.name.rsplit("/", 1)[-1]] = described(whole, whole.samples)
    json.dump(found, sys.stdout)
