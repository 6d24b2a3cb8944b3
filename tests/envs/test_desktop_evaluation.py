"""OSWorld's metrics and its way to join them, on values worked out by hand."""

from __future__ import annotations

import json

import pytest

from agentrl.core.errors import DataError, EnvError
from agentrl.envs.desktop import evaluation, getters
from agentrl.envs.desktop.metrics import METRICS
from agentrl.envs.desktop.sources import Sources
from agentrl.envs.desktop.steps import Stage, filled
from agentrl.envs.desktop.tasks import read_suite


@pytest.mark.parametrize(
    ("name", "result", "expected", "score"),
    [
        ("exact_match", "true\n", {"expected": "true\n"}, 1.0),
        ("exact_match", "true", {"expected": "true\n"}, 0.0),
        ("match_in_list", "light", {"expected": ["light", "dark"]}, 1.0),
        ("is_in_list", ["a", "b"], {"expected": "b"}, 1.0),
        ("is_in_list", None, {"expected": "b"}, 0.0),
        ("check_include_exclude", "is ok here", {"include": ["ok"], "exclude": ["bad"]}, 1.0),
        ("check_include_exclude", "ok, bad", {"include": ["ok"], "exclude": ["bad"]}, 0.0),
        ("check_include_exclude", None, {"include": [], "exclude": []}, 0.0),
        ("check_list", b"one\ntwo\n", {"expect": ["^t.o$"], "unexpect": ["three"]}, 1.0),
        ("check_list", b"one\ntwo\n", {"expect": ["^t.o$"], "unexpect": ["one"]}, 0.0),
        ("check_direct_json_object", {"a": "1", "b": "2"}, {"expected": {"a": "1"}}, 1.0),
        ("check_direct_json_object", {"a": "1"}, {"expected": {"a": ["1", "2"]}}, 1.0),
        ("check_direct_json_object", {"a": "3"}, {"expected": {"a": ["1", "2"]}}, 0.0),
        (
            "check_direct_json_object",
            {"a": "x=17;"},
            {"expected": {"a": "17"}, "expect_in_result": True},
            1.0,
        ),
        ("check_direct_json_object", None, {"expected": {}}, 0.0),
        (
            "check_json",
            b'{"a": {"b": [3, 4]}}',
            {
                "expect": [{"key": ["a", "b", 1], "method": "eq", "ref": 4}],
                "unexpect": [{"key": ["a", "c"], "method": "ne", "ref": 0}],
            },
            1.0,
        ),
        ("check_json", b"{", {"expect": []}, 0.0),
        ("check_json_settings", b'{"tab": 4, "x": 1}', {"expected": {"tab": 4}}, 1.0),
        ("check_json_settings", b'{"tab": 2}', {"expected": {"tab": 4}}, 0.0),
        ("check_json_keybindings", b'[{"key": "f"}]', {"expected": {"key": "f"}}, 1.0),
        ("check_csv", b"a,b\n1,2\n", {"expect": [{"b": "2"}], "unexpect": [{"a": "2"}]}, 1.0),
        ("check_csv", b"a,b\n1,2\n", {"expect": [{"a": "2"}]}, 0.0),
        ("compare_text_file", b"a\n", b"a\n", 1.0),
        ("compare_text_file", b"a\n", b"A\n", 0.0),
        ("file_contains", b"alpha beta", {"expected": ["alpha", "beta"]}, 1.0),
        ("file_contains", None, {"expected": []}, 0.0),
        ("file_equals", b"one\n", {"text": "one"}, 1.0),
        ("file_equals", b"one\n\n", {"text": "one"}, 0.0),
        # Lines a b c d against a x c d: 2 * 3 matches of 8 lines.
        ("diff_text_file", b"a\nb\nc\nd", b"a\nx\nc\nd", 0.75),
        ("literal_match", "A", "A", 1.0),
        ("is_utc_0", "  Time zone: Etc/UTC (UTC, +0000)\n", None, 1.0),
        ("is_utc_0", "  Time zone: Asia/Tokyo (JST, +0900)\n", None, 0.0),
        ("is_extension_installed", "x.y", {"type": "contain", "expected": "x.y"}, 1.0),
        ("is_extension_installed", "x.y", {"type": "not_contain", "expected": "x.y"}, 0.0),
        ("check_gnome_favorite_apps", "['a.desktop', 'b']", {"expected": ["a.desktop", "b"]}, 1.0),
        ("is_expected_url_pattern_match", "file:///a/b", {"expected": ["^file:", "b$"]}, 1.0),
        ("is_expected_active_tab", "https://www.x.org/a/", {"url": "https://x.org/a"}, 1.0),
        ("is_expected_active_tab", "https://x.org/b", {"url": "https://x.org/a"}, 0.0),
        (
            "is_expected_bookmarks",
            {"bookmark_bar": {"children": [{"type": "folder", "name": "Favorites"}]}},
            {"type": "bookmark_bar_folders_names", "names": ["Favorites"]},
            1.0,
        ),
        (
            "check_elements",
            [{"role": "text", "name": "", "text": "408"}],
            {"expect": [{"role": "text", "text": "^408$"}], "unexpect": [{"role": "frame"}]},
            1.0,
        ),
        (
            "check_elements",
            [{"role": "text", "name": "", "text": "4080"}],
            {"expect": [{"role": "text", "text": "^408$"}]},
            0.0,
        ),
        ("no_file", b"", None, 0.0),
        ("no_file", None, None, 1.0),
    ],
)
def test_a_metric_by_hand(name, result, expected, score):
    arguments = [result] if expected is None else [result, expected]
    assert METRICS[name](*arguments) == score


async def judged(monkeypatch, evaluator, results, *, failed=False):
    """The score where the getters of an evaluator give `results`, in order."""
    left = list(results)

    async def get(stage, spec):
        return spec["rules"] if spec["type"] == "rule" else left.pop(0)

    monkeypatch.setattr(getters, "get", get)
    stage = Stage(desktop=None, sources=Sources(), kept={}, strict=False)  # type: ignore[arg-type]
    return await evaluation.evaluate(evaluator, stage, failed=failed)


def several(conj, *names):
    return {
        "func": list(names),
        "conj": conj,
        "result": [{"type": "vm_file", "path": "x"}] * len(names),
        "expected": [{"type": "vm_file", "path": "y"}] * len(names),
    }


@pytest.mark.parametrize(
    ("conj", "results", "score"),
    [
        # Each pair is a file and what it is compared with: 0.75 alike, alike, not at all.
        ("and", [b"a\nb\nc\nd", b"a\nx\nc\nd", b"s", b"s"], (0.75 + 1.0) / 2),
        ("and", [b"a\nb\nc\nd", b"a\nx\nc\nd", b"s", b"t"], 0.0),
        ("or", [b"a\nb\nc\nd", b"a\nx\nc\nd", b"s", b"t"], 0.75),
        ("or", [b"s", b"s"], 1.0),
    ],
)
async def test_several_metrics_are_joined_as_osworld_joins_them(monkeypatch, conj, results, score):
    evaluator = several(conj, "diff_text_file", "diff_text_file")
    assert await judged(monkeypatch, evaluator, results) == score


async def test_fail_scores_where_and_only_where_a_task_is_infeasible(monkeypatch):
    infeasible = {"func": "infeasible"}
    feasible = {"func": "no_file", "result": {"type": "vm_file", "path": "x"}}
    assert await judged(monkeypatch, infeasible, [], failed=True) == 1.0
    assert await judged(monkeypatch, infeasible, []) == 0.0
    assert await judged(monkeypatch, feasible, [None], failed=True) == 0.0
    assert await judged(monkeypatch, feasible, [None]) == 1.0


async def test_an_evaluator_that_cannot_be_computed_is_a_failure_and_no_zero(monkeypatch):
    broken = {
        "func": "check_include_exclude",
        "result": {"type": "vm_file", "path": "x"},
        "expected": {"type": "rule", "rules": {"include": [3]}},
    }
    with pytest.raises(EnvError, match="check_include_exclude failed"):
        await judged(monkeypatch, broken, [b"text"])


def suite(tmp_path, *rows, sources=None):
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_suite(path, sources=sources or Sources())


def row(**changes):
    return {"id": "a", "instruction": "Do.", "evaluator": {"func": "infeasible"}, **changes}


def reasons(tmp_path, sources=None, **changes):
    (refused,) = suite(tmp_path, row(**changes), sources=sources).refused
    return "; ".join(refused.reasons)


def step(kind, **parameters):
    return {"type": kind, "parameters": parameters}


def test_a_task_without_setup_is_read_and_one_of_another_form_is_refused_by_line(tmp_path):
    assert [task.id for task in suite(tmp_path, row()).tasks] == ["a"]
    with pytest.raises(DataError, match=r"tasks\.jsonl:2: 'evaluator' must be an object"):
        suite(tmp_path, row(), row(evaluator="exact_match"))
    with pytest.raises(DataError, match="'config' must be a list"):
        suite(tmp_path, row(config={"type": "launch"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": [step("login")]}, "setup step 'login' is not known"),
        ({"config": [step("launch", command=["gimp"])]}, "the program 'gimp' is not on"),
        ({"config": [step("execute", command="echo x | sudo -S ls", shell=True)]}, "'sudo'"),
        ({"config": [step("open", path="/home/user/a.xlsx")]}, "opens '.xlsx' files"),
        (
            {"config": [step("chrome_open_tabs", urls_to_open=["https://x.org"])]},
            "a desktop has no network",
        ),
        (
            {"config": [step("download", files=[{"url": "https://x.org/a", "path": "/tmp/a"}])]},
            "`downloads` is not set",
        ),
        (
            {"config": [step("execute", command=["python", "-c", "import pyautogui; f(1)"])]},
            "pyautogui script cannot be read",
        ),
        (
            {"config": [step("execute", command=["gsettings", "get", "org.nobody.knows", "x"])]},
            "no settings named 'org.nobody.knows'",
        ),
        (
            {"evaluator": {"func": "compare_table", "result": {"type": "vm_file", "path": "a"}}},
            "metric 'compare_table' is not known",
        ),
        (
            {"evaluator": {"func": "no_file", "result": {"type": "vm_wallpaper"}}},
            "getter 'vm_wallpaper' is not known",
        ),
        (
            {
                "evaluator": {
                    "func": "no_file",
                    "result": {"type": "vm_file", "path": "a"},
                    "options": {"fuzzy": True},
                }
            },
            "no option 'fuzzy'",
        ),
        (
            {"evaluator": {"func": "exact_match", "result": {"type": "vm_file", "path": "a"}}},
            "to compare with",
        ),
        (
            {"evaluator": {"func": ["no_file", "no_file"], "result": {"type": "vm_file"}}},
            "not as many of 'result'",
        ),
    ],
)
def test_what_cannot_run_here_is_said(tmp_path, changes, said):
    assert said in reasons(tmp_path, **changes)


async def test_files_come_from_the_folder_that_was_named_and_from_nowhere_else(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("s")
    (tmp_path / "data" / "link.txt").symlink_to(tmp_path / "secret.txt")
    sources = Sources(folder=str(tmp_path / "data"))
    assert await sources.read("file:///a.txt") == b"a"
    for url in ("file:///../secret.txt", "file:///link.txt", f"file://{tmp_path}/secret.txt"):
        assert sources.refusal(url)
        with pytest.raises(EnvError):
            await sources.read(url)
    assert "names no folder" in str(Sources().refusal("file:///a.txt"))


def test_placeholders_of_the_screen_are_filled():
    found = filled({"a": ["click({SCREEN_WIDTH_HALF}, {SCREEN_HEIGHT})"]}, width=1280, height=720)
    assert found == {"a": ["click(640, 720)"]}


def test_a_root_that_cannot_be_left_gets_no_desktop(monkeypatch):
    from agentrl.core.errors import SetupError
    from agentrl.envs.desktop import confinement

    monkeypatch.setattr(confinement, "may_leave_root", lambda: False)
    monkeypatch.setattr(confinement.os, "geteuid", lambda: 0)
    with pytest.raises(SetupError, match="does not bind the machine's root"):
        confinement.confined(confinement.DesktopSettings())
    monkeypatch.setattr(confinement.os, "geteuid", lambda: 1000)
    assert "--unshare-user" in confinement.confined(confinement.DesktopSettings())
