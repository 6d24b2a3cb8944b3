"""Suites of customer service in tau2-bench's form."""

from __future__ import annotations

from agentrl.evals.suite import Rows, Suite

_IDLE = "its gold actions change no record and nothing has to be said: doing nothing solves it"


def _suite(domain: str, db: str, size: int, idle: tuple[str, ...]) -> Suite:
    return Suite(
        name=f"tau2_{domain}",
        title=f"tau2-bench, {domain}: an agent, a policy, a database and a user",
        family="service",
        env="service/tasks",
        args={"domain": domain, "instructions": True, "max_turns": 40},
        rows={
            "eval": Rows(file=f"tau2_bench/{domain}_tasks.jsonl"),
            "db": Rows(file=db),
            "policy": Rows(file=f"tau2_bench/{domain}_policy.txt"),
        },
        score="success",
        max_turns=40,
        max_tokens_per_turn=1024,
        size=size,
        licence="MIT",
        source="arXiv:2506.07982, https://github.com/sierra-research/tau2-bench",
        spoiled_solves=dict.fromkeys(idle, _IDLE),
        notes=(
            "For pass^k take --samples 4 suite.temperature=0.7. The user keeps to a script, so "
            "that scores repeat; tau2-bench's own figures are with a model as the user "
            "(`user_model`) and are not comparable. "
            f"The repository has the files as data/tau2/domains/{domain}/tasks.json, db.json and "
            "policy.md; `suite.args.db=FILE` names another database."
        ),
    )


SUITES: tuple[Suite, ...] = (
    _suite(
        "retail",
        "tau2_bench/retail_db.json",
        114,
        ("10", "12", "24", "25", "50", "62", "65", "68", "105"),
    ),
    _suite(
        "airline",
        "tau2_bench",
        50,
        ("1", "2", "10", "13", "26", "27", "28", "34", "38", "45", "47", "48", "49"),
    ),
)
