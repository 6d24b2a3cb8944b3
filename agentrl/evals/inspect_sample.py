"""One sample as an entry of inspect_ai's logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.core.types import StopReason
from agentrl.evals.conversation import Said, conversation
from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.evals.samples import Sample
from agentrl.evals.shown_text import encodable

_SUMMARY = 1_024
_KEPT_WHOLE = ("id", "epoch", "model_usage", "total_time", "working_time", "uuid", "turn_count")


def sample_entry(sample: Sample, plan: EvalPlan, planned: PlannedSuite) -> dict[str, Any]:
    """`sample` as an `EvalSample`, plain JSON data. Gold answers are not in samples: no target."""
    key = sample.key
    uuid = f"{key.suite}/{key.task_id}/{key.number}"
    said = conversation(sample)
    model = encodable(plan.policy)
    messages = _messages(said, model=model, uuid=encodable(uuid))
    prompt = [one for one, which in zip(messages, said, strict=True) if which.turn is None]
    usage = {
        "input_tokens": sample.prompt_tokens,
        "output_tokens": sample.generated_tokens,
        "total_tokens": sample.prompt_tokens + sample.generated_tokens,
    }
    seconds = sample.generate_seconds + sample.env_seconds
    entry = {
        # A zip's names, which hold the id, end at a NUL.
        "id": encodable(key.task_id).replace("\0", "\ufffd"),
        "epoch": key.number + 1,
        "input": prompt[0]["content"] if len(prompt) == 1 else prompt,
        "target": "",
        "messages": messages,
        "output": _output(messages, sample, model, usage),
        "scores": _scores(sample),
        "metadata": _about(sample),
        "model_usage": {model: usage},
        "total_time": seconds,
        "working_time": seconds,
        "uuid": encodable(uuid),
        "turn_count": sample.turns,
    }
    if sample.failure:
        message = encodable(f"{sample.failure}: {sample.error}")
        entry["error"] = {"message": message, "traceback": message, "traceback_ansi": message}
    # The failure that a sample ended with is the last that its tree notes.
    mended = sample.tree.failures[: -1 if sample.failure else None]
    retried = [encodable(f"{one.stop_reason}: {one.message}") for one in mended]
    if retried:
        entry["error_retries"] = [
            {"message": text, "traceback": text, "traceback_ansi": text} for text in retried
        ]
    limit = _limit(sample, plan, planned)
    return entry if limit is None else {**entry, "limit": limit}


def summary_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The `EvalSampleSummary` of an entry: no conversation, every text cut."""
    summary: dict[str, Any] = {name: entry[name] for name in _KEPT_WHOLE}
    summary |= {name: _cut(entry[name]) for name in ("input", "target", "metadata", "scores")}
    summary |= {"completed": True, "message_count": len(entry["messages"])}
    if "error" in entry:
        summary["error"] = _cut(entry["error"]["message"])
    if "error_retries" in entry:
        summary["retries"] = len(entry["error_retries"])
    if "limit" in entry:
        summary["limit"] = entry["limit"]["type"]
    return summary


def _messages(said: Sequence[Said], *, model: str, uuid: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    open_calls: list[tuple[str, str]] = []
    for number, one in enumerate(said):
        message: dict[str, Any] = {
            "id": f"{uuid}/{number}",
            "role": one.role,
            "content": encodable(one.text),
        }
        if one.turn is None:
            message["source"] = "input"
        elif one.role == "assistant":
            message |= {"source": "generate", "model": model}
            open_calls = []
            if one.calls:
                calls = [
                    {
                        "id": f"{uuid}/{number}/{place}",
                        "function": encodable(call.name),
                        "arguments": plain(dict(call.arguments)),
                        "type": "function",
                    }
                    for place, call in enumerate(one.calls)
                ]
                message["tool_calls"] = calls
                open_calls = [(call["id"], call["function"]) for call in calls]
        elif one.role == "tool" and open_calls:
            # Observations answer the calls before them in order.
            identity, function = open_calls.pop(0)
            message |= {"tool_call_id": identity, "function": function}
        messages.append(message)
    return messages


def _output(
    messages: Sequence[Mapping[str, Any]], sample: Sample, model: str, usage: Mapping[str, int]
) -> dict[str, Any]:
    last = next((one for one in reversed(messages) if one["role"] == "assistant"), None)
    if last is None:
        return {"model": model, "choices": [], "completion": ""}
    cut = sample.stop_reason is StopReason.TRUNCATED_TOKENS
    return {
        "model": model,
        "choices": [{"message": last, "stop_reason": "max_tokens" if cut else "stop"}],
        "completion": last["content"],
        "usage": usage,
        "time": sample.generate_seconds,
    }


def _scores(sample: Sample) -> dict[str, Any] | None:
    """A score for each number of the sample; of a failed one none, so that nothing counts it."""
    if sample.failure:
        return None
    answer = None if sample.answer is None else encodable(sample.answer)
    return {
        encodable(name): {"value": value, "answer": answer}
        for name, value in sample.scores.items()
        if math.isfinite(value)
    }


def _about(sample: Sample) -> dict[str, Any]:
    return {
        "stop_reason": str(sample.stop_reason),
        "failure": sample.failure,
        "seed": sample.seed,
        "solved_turn": sample.solved_turn,
        "tool_calls": sample.tool_calls,
        "malformed_calls": sample.malformed_calls,
        "retries": sample.retries,
        "answers": plain(list(sample.answers)),
    }


def _limit(sample: Sample, plan: EvalPlan, planned: PlannedSuite) -> dict[str, Any] | None:
    limits = plan.rollout.limits
    known = {
        StopReason.TRUNCATED_TURNS: ("turn", planned.max_turns),
        StopReason.TRUNCATED_TOKENS: ("token", limits.max_tokens),
        StopReason.TRUNCATED_TIME: ("time", limits.episode_seconds),
        StopReason.TRUNCATED_BUDGET: (
            "custom",
            limits.max_generated_tokens or limits.max_tool_calls or 0,
        ),
    }
    if sample.stop_reason not in known:
        return None
    kind, limit = known[sample.stop_reason]
    return {"type": kind, "limit": limit, "reason": str(sample.stop_reason)}


def plain(value: Any) -> Any:
    """JSON data with encodable text and string keys; what JSON has not becomes text."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {encodable(str(name)): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if value is None or isinstance(value, bool | int) or _is_finite(value):
        return value
    return str(value)


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _cut(value: Any) -> Any:
    """`value` with every text cut to a kilobyte."""
    if isinstance(value, str):
        return value if len(value) <= _SUMMARY else value[:_SUMMARY] + "..."
    if isinstance(value, Mapping):
        return {name: _cut(one) for name, one in value.items()}
    return [_cut(one) for one in value] if isinstance(value, list) else value
