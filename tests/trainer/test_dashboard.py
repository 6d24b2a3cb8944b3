"""The dashboard of a run: what it shows in any width, and that it cannot break a run."""

import io
import math
import sys
import threading

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from agentrl.core.types import ROOT, Failure, Group, StopReason, ToolRecord, TrajectoryTree, Turn
from agentrl.evals.statistics import Interval
from agentrl.trainer.dashboard import Dashboard, Limits, sparkline
from agentrl.trainer.display import Display
from agentrl.trainer.summary import SlowTask, rollout_metrics, slowest_tasks

METRICS = {
    "rollout/reward_mean": 0.25,
    "rollout/turns_mean": 2.5,
    "rollout/branches": 3.0,
    "rollout/tool_calls": 40.0,
    "rollout/trajectories": 64.0,
    "rollout/generated_tokens": 1000.0,
    "rollout/trajectory_tokens_p50": 15.0,
    "rollout/trajectory_tokens_p95": 31.0,
    "rollout/tokens_per_second": 500.0,
    "policy/entropy_mean": 0.75,
    "policy/lag_max": 1.0,
    "env/seconds_p50": 0.001,
    "env/seconds_p95": 0.25,
    "env/seconds_max": 1.5,
    "failures/env_error": 2.0,
    "failures/engine_error": 0.0,
    "time/rollout_seconds": 2.0,
    "time/wait_seconds": 2.0,
    "time/update_seconds": 1.0,
    "time/sync_seconds": 0.5,
    "time/iteration_seconds": 4.0,
    "budget/generated_tokens": 3000.0,
    "budget/tool_calls": 120.0,
}
HOSTILE = "[bold red]task\n\x1b[2J\u202e" + "x" * 500


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def after(iterations, *, limits=None, seconds=10.0):
    clock = Clock()
    shown = Dashboard("toy", limits or Limits(iterations=20), clock=clock)
    shown.evaluation("em", Interval(0.5, 0.4, 0.6, method="wilson"), "50.0 % [40.0, 60.0]")
    for number in range(1, iterations + 1):
        clock.now += seconds
        shown.iteration(number, METRICS | {"rollout/reward_mean": float(number)})
    shown.slowest(
        [SlowTask("t1", 3.25, "search"), SlowTask(HOSTILE, 1.0, ""), SlowTask("quick", 0.001, "")]
    )
    return shown


def drawn(shown, width=120):
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=True)
    console.print(shown)
    return console.file.getvalue()


def test_everything_that_matters_is_shown():
    text = drawn(after(5))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "toy iteration 5/20 0:50, 2:30 left"
    assert "eval em 50.0 % [40.0, 60.0] ▅" in lines
    assert "reward 5.000 ▁▃▅▇█" in lines
    assert any(one.startswith("tokens a trajectory 15 median, 31 p95") for one in lines)
    assert any(one.startswith("throughput 500 tokens/s, 32.0 trajectories/s") for one in lines)
    assert any(one.startswith("time 4.0 s: rollout 50 %, update 25 %, sync 12 %") for one in lines)
    assert any(one.startswith("env seconds 0.001 median, 0.250 p95, 1.500 most") for one in lines)
    assert any(one.startswith("spent 3,000 tokens, 120 calls") for one in lines)
    assert "failures so far: 10 env_error" in lines
    assert "slow: 3.25 s in t1, search" in lines and "quick" not in text


@pytest.mark.parametrize("width", [60, 79, 80, 100, 133, 200])
def test_no_line_is_wider_than_the_terminal_and_nothing_of_the_tasks_is_obeyed(width):
    text = drawn(after(15), width)
    lines = text.splitlines()
    assert len(lines) == len(drawn(after(15), 200).splitlines())
    assert max(map(len, lines)) <= width
    assert "\x1b" not in text and "\u202e" not in text and "[bold red]task" in text


def test_before_the_first_iteration_it_says_what_goes_on():
    shown = Dashboard("toy", Limits(iterations=3), clock=Clock())
    shown.status = "starting"
    assert [line.strip() for line in drawn(shown).splitlines()] == [
        *("toy  iteration 0/3  0:00", "starting")
    ]


def test_what_is_not_known_is_a_dash():
    shown = Dashboard("toy", Limits(iterations=3), clock=Clock())
    shown.iteration(1, {"rollout/reward_mean": math.nan, "failures/env_error": math.nan})
    text = drawn(shown)
    assert "nan" not in text and "reward" in text and "failures so far: none" in text


def test_the_time_left_is_that_of_the_first_limit():
    assert after(4).seconds_left() == pytest.approx(16 * 10.0)
    # 1,000 tokens an iteration, 3,000 spent: 2 more iterations, though 16 are allowed.
    tokens = after(4, limits=Limits(iterations=20, generated_tokens=5000))
    assert tokens.seconds_left() == pytest.approx(2 * 10.0)
    # 40 calls an iteration, 120 spent: half an iteration.
    calls = after(4, limits=Limits(iterations=20, generated_tokens=5000, tool_calls=140))
    assert calls.seconds_left() == pytest.approx(0.5 * 10.0)
    assert "120 of 140 calls" in drawn(calls)
    assert Dashboard("toy", Limits(iterations=3)).seconds_left() is None


def test_a_curve_goes_from_its_lowest_to_its_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([9, 0, 7], 2) == "▁█" and sparkline([2, 2], 8) == "▅▅"
    assert sparkline([0, math.nan, 1], 8) == "▁ █" and sparkline([math.nan], 8) == ""


@given(st.lists(st.floats()), st.integers(0, 50))
@example(values=[sys.float_info.max, -sys.float_info.max, 0.0], width=3)
@example(values=[5e-324, 0.0], width=2)
def test_a_curve_never_fails_and_never_exceeds_its_room(values, width):
    assert len(sparkline(values, width)) <= width


def test_it_is_drawn_while_the_run_goes_on():
    shown = after(1)
    told = []

    def feed():
        for number in range(2, 400):
            shown.iteration(number, METRICS | {f"failures/{number}": 1.0})
            shown.bar = None

    thread = threading.Thread(target=feed)
    thread.start()
    while thread.is_alive() or not told:
        told.append(drawn(shown, 80))
    thread.join()
    assert shown.failure == "" and all("failures so far" in text for text in told)


# -- in the display of a run ------------------------------------------------------------------


def terminal(width=100):
    return Console(file=io.StringIO(), width=width, force_terminal=True, highlight=False)


def played(display):
    """What a run does with its display."""
    with display.live("toy", Limits(iterations=2)):
        for number in (1, 2):
            with display.phase("pushing"):
                pass
            with display.bar("playing", 3) as bar:
                bar.advance(bar.task_ids[0])
            display.slowest([SlowTask("t", 1.0, "")])
            display.iteration(number, 2, METRICS)
            display.evaluation("em", Interval(0.5, 0.4, 0.6, method="wilson"), "3 tasks")
        display.line("a note")
    display.line("the end")
    return display.console.file.getvalue()


def test_on_a_terminal_the_dashboard_takes_the_place_of_the_lines():
    text = played(Display(terminal()))
    assert "failures so far" in text and "  clipped " not in text
    assert "a note" in text and text.rstrip().endswith("the end")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # The cursor is given back.


@pytest.mark.parametrize(
    "display",
    [
        Display(Console(file=io.StringIO(), width=200)),
        Display(Console(file=io.StringIO(), width=200), plain=True),
        Display(terminal(200), plain=True),
        Display(
            Console(file=io.StringIO(), width=200, force_terminal=True, _environ={"TERM": "dumb"})
        ),
    ],
    ids=["no terminal", "no terminal, plain", "plain", "dumb terminal"],
)
def test_elsewhere_there_is_a_line_for_each_iteration(display):
    text = played(display)
    assert text.count("clipped") == 2 and "failures so far" not in text


def broken(*_arguments, **_named):
    raise ZeroDivisionError("drawn by zero")


@pytest.mark.parametrize("what", ["_drawn", "iteration", "evaluation"])
def test_a_dashboard_that_fails_is_put_away_once_and_the_lines_go_on(monkeypatch, what):
    monkeypatch.setattr(Dashboard, what, broken)
    text = played(Display(terminal(200)))
    assert (
        text.count("the dashboard failed and is put away (ZeroDivisionError: drawn by zero)") == 1
    )
    assert text.count("  clipped ") == (1 if what == "evaluation" else 2)
    assert text.rstrip().endswith("the end")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")


def test_a_dashboard_that_cannot_start_is_put_away(monkeypatch):
    monkeypatch.setattr("agentrl.trainer.display.Live", broken)
    text = played(Display(terminal(200)))
    assert text.count("the dashboard failed") == 1 and text.count("  clipped ") == 2


def test_an_error_of_the_run_passes_through_and_gives_the_terminal_back():
    display = Display(terminal())
    with pytest.raises(KeyError, match="mine"), display.live("toy", Limits(iterations=2)):
        raise KeyError("mine")
    text = display.console.file.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_a_long_run_keeps_little_of_its_past():
    shown = after(1000, limits=Limits(iterations=2000))
    assert max(len(past) for past in shown._past.values()) <= 512
    assert "iteration 1000/2000  2:46:40, 2:46:40 left" in drawn(shown)


# -- the metrics that it needs ----------------------------------------------------------------


def turn(tokens, env_seconds, calls=()):
    zeros = np.zeros(tokens, np.float32)
    return Turn(
        action_ids=np.zeros(tokens, np.int32),
        logprobs=zeros,
        entropies=zeros,
        env_seconds=env_seconds,
        tool_calls=tuple(calls),
    )


def group(task, turns, failures=(), leaf=StopReason.TERMINATED):
    tree, node = TrajectoryTree(task, [1]), ROOT
    for one in turns:
        node = tree.add(node, one)
    tree.end(node, leaf)
    tree.failures += [Failure(ROOT, reason, "gone") for reason in failures]
    return Group(task, task, (tree,))


def test_lengths_times_tools_and_failures_by_hand():
    search = ToolRecord("search", {}, True, 0.25)
    refused = ToolRecord("whatever a policy writes", {}, False, 9.0)
    groups = [
        group("a", [turn(2, 1.0, [search, search]), turn(4, 2.0, [refused])]),
        group("b", [turn(10, 3.0)], failures=[StopReason.ENGINE_ERROR] * 2),
        # A line that stayed broken: noted and ended, one failure; its tokens are no trajectory's.
        group("c", [turn(90, 5.0)], [StopReason.ENV_ERROR], leaf=StopReason.ENV_ERROR),
        group("d", [turn(90, 4.0)], leaf=StopReason.CANCELLED),
    ]
    found = rollout_metrics(groups)
    assert (found["rollout/trajectory_tokens_p50"], found["rollout/trajectory_tokens_p95"]) == (
        *(8.0, pytest.approx(9.8)),
    )
    assert (found["env/seconds_p50"], found["env/seconds_max"]) == (3.0, 5.0)
    assert found["env/seconds_p95"] == pytest.approx(4.8)
    assert {k: v for k, v in found.items() if k.startswith("tools/")} == {
        "tools/search_seconds": 0.5
    }
    assert {k: v for k, v in found.items() if k.startswith("failures/")} == {
        "failures/env_error": 1.0,
        "failures/engine_error": 2.0,
        "failures/cancelled": 1.0,
    }


def test_the_slowest_tasks_come_first_with_the_tool_that_took_most():
    calls = [ToolRecord(name, {}, True, seconds) for name, seconds in (("a", 0.5), ("b", 0.4))]
    calls.append(ToolRecord("b", {}, False, 0.4))
    groups = [
        group("x", [turn(1, 1.0, calls), turn(1, 1.0)]),
        group("y", [turn(1, 1.5)]),
        group("z", [turn(1, 0.1)]),
    ]
    assert slowest_tasks(groups, 2) == [SlowTask("x", 2.0, "b"), SlowTask("y", 1.5, "")]


def test_without_any_turn_lengths_and_times_are_unknown():
    found = rollout_metrics([])
    assert math.isnan(found["env/seconds_max"]) and math.isnan(
        found["rollout/trajectory_tokens_p50"]
    )
    assert found["failures/env_error"] == 0.0
