from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app

RUN = CliRunner()

BAD_ENV = """
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Task

class AlwaysRight(ToolEnv):
    def tasks(self, split):
        return [Task(split)]
    def prompt(self, task):
        return "?"
    def score(self, task, answer):
        return {"x": 1.0}
    def gold_action(self, task, turn):
        return "<answer>a</answer>"
"""


def test_list_shows_ids_and_packages():
    done = RUN.invoke(app, ["env", "list"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert "demo/calculator" in done.output and "agentrl.envs.search:FactsSearchEnv" in done.output


def test_check_names_the_rules_that_hold():
    done = RUN.invoke(
        app, ["env", "check", "demo/guess", "--arg", "highest=9"], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0
    assert "step after the end raises" in done.output
    assert "keeps its contract on 2 tasks" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "demo/gues"], "Did you mean 'demo/guess'?"),
        (["check", "demo/guess", "--arg", "higest=9"], "Did you mean 'highest'?"),
        (["check", "demo/guess", "--arg", "highest"], "takes key=value, got 'highest'"),
        (["check", "demo/guess", "--arg", "highest=["], "is no YAML value"),
        (["play", "demo/guess", "--task", "train-10"], "no task 'train-10' among the 1"),
    ],
)
def test_a_mistake_of_the_user_ends_with_its_message_and_code_two(arguments, message):
    done = RUN.invoke(app, ["env", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_check_of_a_bad_env_beside_the_user_lists_its_rules_and_ends_with_one(
    tmp_path, monkeypatch
):
    (tmp_path / "bad_env_here.py").write_text(BAD_ENV)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = RUN.invoke(app, ["env", "check", "bad_env_here:AlwaysRight"])
    assert done.exit_code == 1
    assert "- gold actions end the episode and earn more than spoiled ones: " in done.stderr


def test_play_runs_an_episode_at_the_keyboard():
    keys = ":gold\nthree\n<add>1 + \\\n2</add>\n:gold\n"
    done = RUN.invoke(app, ["env", "play", "demo/calculator", "--task", "train-3"], input=keys)
    assert done.exit_code == 0
    assert "What is 32 + 44 + 34?" in done.output and "<result>76</result>" in done.output
    assert "malformed calls: 1" in done.output and "<result>3</result>" in done.output
    assert "terminated after 4 turns, return 1" in done.output


def test_play_ends_with_the_input():
    done = RUN.invoke(app, ["env", "play", "demo/guess", "--split", "eval"], input="49\n")
    assert done.exit_code == 0
    assert "left after 1 turns, return so far 0" in done.output


def test_one_ctrl_c_at_the_prompt_leaves() -> None:
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "agentrl", "env", "play", "demo/guess"],
        stdin=screen,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background ignores the signal, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        said = ""
        while "> " not in said:
            said += process.stdout.read(1)
        time.sleep(1.0)  # The prompt is written before the keyboard is waited for.
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    finally:
        process.kill()
        os.close(keyboard)
        os.close(screen)
    assert (process.returncode, told) == (130, "stopped\n")
