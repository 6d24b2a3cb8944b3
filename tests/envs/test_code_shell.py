"""The shell environment: its rows, its check, and policies that would rather cheat than work."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import time

import pytest

from agentrl.core.errors import DataError, EnvError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.code.shell import ShellEnv
from agentrl.envs.code.shell_check import Entry, _entries, mismatch
from agentrl.envs.code.shell_rows import Check, own_tasks, read_tasks
from agentrl.sandbox import BubblewrapSettings, DockerSettings, Limits, shared
from agentrl.testing import check_env

LIMITS = Limits(wall_seconds=5.0, disk_mb=4)
BUBBLEWRAP = BubblewrapSettings(limits=LIMITS, preload=())
DOCKER = DockerSettings(image="agentrl-test:latest", pull="never", containers=6)


def need_bubblewrap():
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not there: apt-get install bubblewrap")


# ---- rows


def written(tmp_path, *rows):
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROW = {
    "id": "one",
    "instruction": "Say hi in hi.txt.",
    "check": {"expect": {"hi.txt": "hi\n"}},
    "solution": ["echo hi >hi.txt"],
}


def test_rows_of_a_file_become_tasks_that_survive_json(tmp_path):
    env = make_env("code/shell", train=written(tmp_path, ROW))
    (task,) = env.tasks("train")
    assert task.id == "one" and json.loads(json.dumps(task.data)) == task.data
    assert list(env.tasks("eval")) == []
    assert env.gold_action(task, 0) == "<shell>echo hi >hi.txt</shell>"
    assert env.gold_action(task, 1) == "<answer>done</answer>"
    assert env.gold_action(task, 2) is None


def test_a_file_that_changed_is_read_again(tmp_path):
    source = written(tmp_path, ROW)
    assert len(read_tasks(source)) == 1
    written(tmp_path, ROW, {**ROW, "id": "two"})
    assert [task.id for task in read_tasks(source)] == ["one", "two"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ROW, "instruction": 5}, r"tasks.jsonl:1: instruction: .*string"),
        ({**ROW, "chekc": {}}, r"tasks.jsonl:1: chekc: extra"),
        ({**ROW, "check": {}}, r"tasks.jsonl:1: check: .*asks for nothing"),
        ({**ROW, "check": {"runs": [{"stdout": "x"}]}}, r"check.runs.0.command: field required"),
        ({"id": "x", "instruction": "y"}, r"check: field required"),
        ({"instruction": "y", "check": {"answer": "x"}}, r"no 'id'"),
    ],
)
def test_a_malformed_row_is_named_with_its_line_and_key(tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        make_env("code/shell", train=written(tmp_path, row)).tasks("train")


def test_an_id_that_comes_twice_and_an_empty_file_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"tasks.jsonl:2: id 'one'"):
        read_tasks(written(tmp_path, ROW, ROW))
    with pytest.raises(DataError, match="empty"):
        read_tasks(written(tmp_path))
    with pytest.raises(DataError, match="no such file of shell tasks"):
        read_tasks(str(tmp_path / "none.jsonl"))


def test_our_own_tasks_are_as_promised():
    train, held_out = own_tasks("train"), own_tasks("eval")
    assert (len(train), len(held_out)) == (20, 12) and own_tasks("other") == []
    assert all(task.data["solution"] for task in (*train, *held_out))
    prompts = [ShellEnv().prompt(task) for task in (*train, *held_out)]
    assert len(set(prompts)) == 32


def test_settings_are_checked_without_starting_anything():
    with pytest.raises(RecipeError, match="sandbox"):
        make_env("code/shell", sandbox={"type": "nope"})
    assert make_env("code/shell").forkable == "copy"
    assert make_env("code/shell", sandbox={"type": "docker"}).forkable == "replay"


# ---- the check, worked by hand


def entries(**files):
    return {path: Entry(text.encode(), None, 0o644) for path, text in files.items()}


@pytest.mark.parametrize(
    ("check", "found", "said"),
    [
        (Check(expect={"a": "1\n"}), entries(a="1\n"), ""),
        (Check(expect={"a": "1\n"}), entries(a="1"), "a has not the wanted content"),
        (Check(expect={"a": "1\n"}), {}, "a has not the wanted content"),
        (Check(expect={"a": ""}), {"a": Entry(None, "b", 0o777)}, "a has not the wanted content"),
        (Check(expect={"a": None}), {}, ""),
        (Check(expect={"a": None}), entries(a=""), "a is still there"),
        (Check(modes={"a": "644"}), entries(a=""), ""),
        (Check(modes={"a": "755"}), entries(a=""), "a has not the mode 755"),
        (Check(modes={"a": "4644"}), entries(a=""), "a has not the mode 4644"),
        (Check(links={"a": "b"}), {"a": Entry(None, "b", 0o777)}, ""),
        (Check(links={"a": "b"}), {"a": Entry(None, "./b", 0o777)}, "a is no link to b"),
        (Check(links={"a": "b"}), entries(a="b"), "a is no link to b"),
        (Check(listing=["a", "b"]), entries(b="", a=""), ""),
        (Check(listing=["a"]), entries(a="", b=""), "the files are not the wanted ones"),
        (Check(listing=["a", "b"]), entries(a=""), "the files are not the wanted ones"),
    ],
)
def test_what_is_wrong_with_the_files(check, found, said):
    assert mismatch(check, found) == said


def test_an_archive_is_read_without_folders_and_without_being_unpacked():
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, kind, more in (
            (".", tarfile.DIRTYPE, {}),
            ("./a", tarfile.REGTYPE, {"mode": 0o600, "size": 2}),
            ("./l", tarfile.SYMTYPE, {"linkname": "../../etc/passwd"}),
            ("./h", tarfile.LNKTYPE, {"linkname": "./a"}),
            ("./p", tarfile.FIFOTYPE, {}),
        ):
            member = tarfile.TarInfo(name)
            member.type = kind
            for key, value in more.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(b"hi") if member.isreg() else None)
    found = _entries(raw.getvalue())
    assert found["a"] == Entry(b"hi", None, 0o600)
    assert found["l"].target == "../../etc/passwd" and found["l"].content is None
    assert found["h"].content == b"hi"
    assert found["p"] == Entry(None, None, 0o644) and "." not in found


# ---- episodes


async def episode(row, *actions, sandbox=BUBBLEWRAP, **settings):
    """Play `actions`; the last result, and the observations' texts."""
    env = ShellEnv(sandbox=sandbox, **settings)
    task = Task(row["id"], {"files": {}, "setup": [], "solution": [], **row})
    texts = [message.text for message in await env.reset(task, seed=0)]
    try:
        for action in actions:
            result = await env.step(action)
            texts += [message.text for message in result.observation]
    finally:
        await env.close()
    return result, texts


def sh(command):
    return f"<shell>{command}</shell>"


DONE = "<answer>done</answer>"
COMPUTE = {
    "id": "compute",
    "instruction": "Write double.py: it prints twice the number on its standard input.",
    "files": {"double.py": "print(input())\n"},
    "check": {
        "runs": [
            {"command": "python3 double.py", "stdin": "21\n", "stdout": "42"},
            {"command": "python3 double.py", "stdin": "-4\n", "stdout": "-8"},
        ]
    },
}


@pytest.mark.slow
@pytest.mark.bubblewrap
async def test_state_goes_on_from_turn_to_turn_and_the_end_is_told_by_the_answer():
    need_bubblewrap()
    result, texts = await episode(
        ROW, sh("mkdir d; cd d; x=hi"), sh("cd ..; echo $x | tee hi.txt; false"), DONE
    )
    assert (result.reward, result.terminated) == (1.0, True)
    assert texts[1:] == [
        "<result>[no output]</result>",
        "<result>hi\n[exit code 1]</result>",
    ]
    for end in ("<answer>finished</answer>", "<answer>DONE</answer>"):
        result, _ = await episode(ROW, sh("echo hi >hi.txt"), end)
        assert (result.reward, result.terminated) == (float("DONE" in end), True)
    result, _ = await episode(ROW, sh("echo hi >hi.txt"), "hm", max_turns=2)
    assert (result.reward, result.terminated, result.truncated) == (0.0, False, True)


@pytest.mark.slow
@pytest.mark.bubblewrap
async def test_files_that_the_task_brings_have_a_time_that_stays():
    need_bubblewrap()
    row = {**ROW, "files": {"d/a": "1"}, "setup": ["ln -s a d/l"]}
    _, texts = await episode(row, sh("date -ur d/a +%F; ls -l --time-style=+%F . d"))
    assert texts[-1].count("2025-01-01") == 4


@pytest.mark.slow
@pytest.mark.bubblewrap
async def test_a_setup_that_fails_is_a_failure_that_names_its_command():
    need_bubblewrap()
    with pytest.raises(EnvError, match=r"'one'.*'chmod 1 none'.*No such file"):
        await episode({**ROW, "setup": ["chmod 1 none"]}, DONE)


@pytest.mark.slow
@pytest.mark.bubblewrap
@pytest.mark.parametrize(
    "cheat",
    [
        "printf 'print(42)\\n' >double.py",
        "alias python3='echo 42'; python3() { echo 42; }; export -f python3",
        "mkdir ~/bin; printf '#!/bin/sh\\necho 42\\n' >~/bin/python3; chmod +x ~/bin/python3; "
        "export PATH=~/bin:$PATH",
        "printf '#!/bin/sh\\necho 42\\n' >python3; chmod +x python3",
        "echo 'echo 42; exit' >~/.bashrc; cp ~/.bashrc ~/.bash_profile; export BASH_ENV=~/.bashrc",
        "mkdir -p ~/.local/lib/python3.11/site-packages; echo 'print(42)' "
        ">~/.local/lib/python3.11/site-packages/usercustomize.py",
        "echo 'print(42); raise SystemExit' >sitecustomize.py",
        "grep -rl 42 / 2>/dev/null | head; find / -name '*check*' -newer double.py 2>/dev/null",
        "rm double.py; ln -s /dev/stdin double.py",
        "rm double.py; mkfifo double.py",
        "rm -r ../task; ln -s / ../task",
        "rm -r ../task; mkfifo ../task",
        "(while :; do echo 'print(42)' >double.py; done) & disown; setsid sleep 60 &",
        "head -c 100M /dev/zero >big",
        "mkdir -p $(printf 'deep/%.0s' $(seq 400)); chmod 0 deep",
        "touch -- --to-command=sh --checkpoint=1 --checkpoint-action=exec=sh",
        "echo 'x=$(((' >~/.shell; trap - EXIT",
        "kill -9 -1",
    ],
)
async def test_a_policy_that_does_not_compute_earns_nothing(cheat):
    need_bubblewrap()
    result, _ = await episode(COMPUTE, sh(cheat), DONE)
    assert (result.reward, result.terminated) == (0.0, True)


@pytest.mark.slow
@pytest.mark.bubblewrap
async def test_a_policy_that_computes_earns_the_reward_whatever_stands_beside_it():
    need_bubblewrap()
    work = "echo 'print(2 * int(input()))' >double.py; ln -s / root; mkfifo pipe; touch -- -rf '*'"
    result, _ = await episode(COMPUTE, sh(work), sh("sleep 60 & PATH=/nope; cd /"), DONE)
    assert result.reward == 1.0


@pytest.mark.slow
@pytest.mark.bubblewrap
async def test_a_program_that_dawdles_in_every_run_fails_the_check_in_time(monkeypatch):
    need_bubblewrap()
    monkeypatch.setattr("agentrl.envs.code.shell_check._CHECK_SECONDS", 1.5)
    slow = "printf 'import time\\ntime.sleep(1)\\nprint(2 * int(input()))' >double.py"
    started = time.perf_counter()
    result, _ = await episode(COMPUTE, sh(slow), DONE)
    assert result.reward == 0.0
    assert time.perf_counter() - started < 20


@pytest.mark.slow
@pytest.mark.bubblewrap
async def test_hidden_files_stand_over_those_of_the_policy_or_the_check_fails():
    need_bubblewrap()
    run = {"command": "python3 test_it.py", "files": {"test_it.py": "import it\nprint(it.f(3))\n"}}
    row = {**ROW, "check": {"runs": [{**run, "stdout": "9"}]}}
    good = "echo 'f = lambda x: x * x' >it.py"
    assert (await episode(row, sh(f"{good}; echo 'print(1)' >test_it.py"), DONE))[0].reward == 1.0
    assert (await episode(row, sh(f"{good}; mkdir test_it.py"), DONE))[0].reward == 0.0
    assert (await episode(row, sh(f"{good}; ln -s /tmp/x test_it.py"), DONE))[0].reward == 0.0


@pytest.mark.slow
@pytest.mark.bubblewrap
async def test_a_branch_goes_on_from_the_files_and_variables_of_its_parent():
    need_bubblewrap()
    env = ShellEnv(sandbox=BUBBLEWRAP)
    task = Task("one", {"files": {}, "setup": [], "solution": [], **ROW})
    await env.reset(task, seed=0)
    await env.step(sh("x=hi; mkdir d; cd d"))
    twin = await env.fork()
    try:
        assert (await twin.step(sh("echo $x >../hi.txt; ls .."))).observation[0].text == (
            "<result>d\nhi.txt</result>"
        )
        assert (await env.step(sh("ls ..; basename $PWD"))).observation[0].text == (
            "<result>d\nd</result>"
        )
        assert (await env.step(DONE)).reward == 0.0
        assert (await twin.step(DONE)).reward == 1.0
    finally:
        await env.close()
        await twin.close()


@pytest.mark.slow
@pytest.mark.docker
async def test_the_environment_keeps_its_contract_in_docker():
    asked = ["sh", "-c", f"docker image inspect {DOCKER.image}"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip("no Docker daemon with the image agentrl-test:latest: run .ci/system")
    tasks = [own_tasks("train")[0], own_tasks("eval")[0]]
    try:
        report = await check_env(lambda: ShellEnv(sandbox=DOCKER), tasks=tasks, seconds=120.0)
        assert report.skipped == ()
        for cheat in ("kill -9 -1; sleep 60 &", "rm -r ../task; ln -s / ../task"):
            assert (await episode(COMPUTE, sh(cheat), DONE, sandbox=DOCKER))[0].reward == 0.0
    finally:
        await shared(DOCKER).close()
