"""The shell tool: state from command to command, limits told, and what no shell can be given."""

from __future__ import annotations

import shutil

import pytest

from agentrl.core.errors import ToolError
from agentrl.sandbox import BubblewrapSettings, Limits, RunResult, RunStatus
from agentrl.sandbox.shared import build
from agentrl.tools.shell import Shell, shell_tool, told

LIMITS = Limits(wall_seconds=2.0, memory_mb=128, output_chars=300)


class FakeSession:
    """Records what it is asked and answers the same."""

    def __init__(self, result):
        self.result, self.asked = result, []

    async def run(self, argv, *, stdin="", limits=None):
        self.asked.append((argv[0], stdin, limits))
        return self.result


def result(status=RunStatus.OK, stdout="", exit_code=0):
    return RunResult(status=status, stdout=stdout, stderr="", exit_code=exit_code)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (result(stdout="a\nb\n\n"), "a\nb"),
        (result(), "[no output]"),
        (result(RunStatus.ERROR, "oops\n", 2), "oops\n[exit code 2]"),
        (result(RunStatus.ERROR, "", 127), "[exit code 127]"),
        (
            result(RunStatus.WALL_LIMIT, "half", None),
            "half\n[ended: it ran longer than 2 s; folder and variables are as before it]",
        ),
        (
            result(RunStatus.MEMORY_LIMIT, "", None),
            "[ended: it used more than 128 MB of memory; folder and variables are as before it]",
        ),
        (
            result(RunStatus.CPU_LIMIT, "", None),
            "[ended: it used more than 10 s of processor time; folder and variables are as before "
            "it]",
        ),
        (
            result(RunStatus.OUTPUT_LIMIT, "x", None),
            "x\n[ended: it would not stop writing; folder and variables are as before it]",
        ),
        (
            result(RunStatus.KILLED, "", None),
            "[ended: by a signal; folder and variables are as before it]",
        ),
    ],
)
def test_what_the_policy_is_told_of_a_command(given, text):
    assert told(given, LIMITS) == text


async def test_the_tool_tells_its_limits_and_runs_what_it_is_given():
    session = FakeSession(result(stdout="hi\n"))
    tool = shell_tool(Shell(session, limits=LIMITS), limits=LIMITS)
    assert tool.name == "shell" and tool.text_parameter == "command"
    assert "2 s and 128 MB" in tool.description and "300 characters" in tool.description
    assert tool.timeout > LIMITS.wall_seconds
    assert await tool.call({"command": "echo hi"}) == "hi"
    assert session.asked == [("bash", "echo hi", LIMITS)]


@pytest.mark.parametrize("command", ["echo a\0b", "x" * 100_001])
async def test_a_command_that_no_shell_can_be_given_is_refused(command):
    session = FakeSession(result())
    with pytest.raises(ToolError, match="a command"):
        await Shell(session).run(command)
    assert session.asked == []


async def test_a_lone_surrogate_is_replaced_since_no_shell_can_read_it():
    session = FakeSession(result())
    await Shell(session).run("echo \ud800")
    assert session.asked == [("bash", "echo ?", None)]


@pytest.fixture
async def shell():
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not there: apt-get install bubblewrap")
    sandbox = build(BubblewrapSettings(limits=LIMITS))
    session = await sandbox.open({"task/a.txt": b"hello\n"})
    yield Shell(session)
    await session.close()
    await sandbox.close()


async def said(shell, command):
    return told(await shell.run(command), LIMITS)


@pytest.mark.parametrize(
    ("before", "command", "shows"),
    [
        ("mkdir d && cd d", "basename $PWD; ls ..", "d\na.txt\nd"),
        ("x=5; y='a  b'", 'echo "$x $y"', "5 a  b"),
        ("export Y=7", "sh -c 'echo $Y'", "7"),
        ("a=(1 '2 3' $'4\\n5')", 'echo "${#a[@]} ${a[1]}"', "3 2 3"),
        ("declare -A m=([k]=v)", 'echo "${m[k]}"', "v"),
        ("f() { echo f $1; }", "f 3", "f 3"),
        ("alias hi='echo hello'", "hi", "hello"),
        ("set -u", "echo $nope", "bash: line 1: nope: unbound variable\n[exit code 127]"),
        ("shopt -s nullglob", "echo *.nope", "[no output]"),
        ("set -e", "false; echo not reached", "[exit code 1]"),
        ("cd /nope; x=1; false", "echo $x", "1"),
        ("x=1; exit 3", "echo $x", "1"),
        ("readonly r=1", "echo $r; r=2", "1\nbash: line 1: r: readonly variable\n[exit code 1]"),
        ("x=lost; sleep 30", "echo [$x]", "[]"),
        ("x=lost; kill -9 $$", "echo [$x]", "[]"),
        ("rm -rf ~/task; cd ..", "ls", "[no output]"),
        ("set -x", "echo a 2>/dev/null", "+ eval 'echo a 2>/dev/null'\n++ echo a\na"),
        ("cd /tmp; cd - >/dev/null", "cd -", "/tmp"),
        ("sleep 60 & echo $! >pid", "kill -0 $(cat pid) 2>/dev/null || echo over", "over"),
    ],
)
@pytest.mark.bubblewrap
@pytest.mark.slow
async def test_a_command_goes_on_where_the_last_one_stopped(shell, before, command, shows):
    await shell.run(before)
    assert await said(shell, command) == shows


@pytest.mark.parametrize(
    ("command", "shows"),
    [
        ("echo out; echo err >&2; echo out", "out\nerr\nout"),
        ("cat; read -r x; echo [$x]", "[]"),
        ("cat <<END\n<b> $((1+1))\nEND", "<b> 2"),
        ("exit 3", "[exit code 3]"),
        ("nope", "bash: line 1: nope: command not found\n[exit code 127]"),
        ("echo é ✓ \ud800", "é ✓ ?"),
        ("sleep 9", "[ended: it ran longer than 2 s; folder and variables are as before it]"),
        ("set | grep -c '^__shell'", "3"),
    ],
)
@pytest.mark.bubblewrap
@pytest.mark.slow
async def test_a_command_says_what_it_would_in_a_terminal(shell, command, shows):
    assert await said(shell, command) == shows


@pytest.mark.bubblewrap
@pytest.mark.slow
async def test_much_output_is_cut_with_a_mark_and_floods_are_ended(shell):
    many = await said(shell, "seq 10000")
    assert many.startswith("1\n2\n") and many.endswith("only the first 300 characters are shown]")
    assert "would not stop writing" in await said(shell, "yes")
    assert await said(shell, "echo on") == "on"


@pytest.mark.bubblewrap
@pytest.mark.slow
async def test_a_fork_of_the_shell_has_its_state_and_goes_its_own_way(shell):
    await shell.run("x=1; mkdir d; cd d; f() { echo f$x; }")
    twin = await shell.fork()
    try:
        assert await said(twin, "x=2; touch twin; f; basename $PWD") == "f2\nd"
        assert await said(shell, "f; ls") == "f1"
    finally:
        await twin.session.close()


@pytest.mark.bubblewrap
@pytest.mark.slow
async def test_a_damaged_state_costs_the_policy_its_state_and_nothing_else(shell):
    await shell.run("x=1")
    await shell.run("trap - EXIT; echo 'x=(((' > ~/.shell; rm -f ~/.shell.new")
    assert await said(shell, "echo [$x]; ls") == "[]\na.txt"
