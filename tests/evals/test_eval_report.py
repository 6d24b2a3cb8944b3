"""The report: every number where it belongs, nothing hidden, and no text of a policy in control."""

import re
from dataclasses import replace

import pytest
from fake_evaluation import HOSTILE, four_samples, part, results, sample, with_nulls, write
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.core.errors import DataError
from agentrl.core.types import ToolRecord
from agentrl.evals import report_model
from agentrl.evals.conversation import conversation
from agentrl.evals.report import write_reports
from agentrl.evals.report_examples import call_text, examples
from agentrl.evals.report_markdown import escaped
from agentrl.evals.report_numbers import duration, estimate_text, quantity
from agentrl.evals.report_plots import bar, curve_plot, interval_plot
from agentrl.evals.results import Estimate
from agentrl.evals.shown_text import clipped, encodable, visible
from agentrl.evals.suite import Reference, Suite


def estimate(value, low=None, high=None):
    return Estimate(value=value, low=low, high=high, tasks=4, method="wilson")


def texts(html):
    """What a reader sees of a page, roughly: tags left out, white space joined."""
    bare = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", bare).split())


# -- numbers ----------------------------------------------------------------------------------


def test_shares_are_in_per_cent_and_rewards_as_they_are():
    assert estimate_text("em", estimate(0.7431, 0.7012, 0.7821)) == "74.3 % [70.1, 78.2]"
    assert estimate_text("reward", estimate(0.7431, 0.7, 0.8)) == "0.743 [0.700, 0.800]"
    assert estimate_text("points", estimate(12.5, 11.0, 14.0)) == "12.500 [11.000, 14.000]"
    assert estimate_text("em", estimate(0.5)) == "50.0 %"
    assert estimate_text("calls", estimate(0.5), estimate(20.0)) == "0.500"
    assert estimate_text("em", estimate(None)) == estimate_text("em", None) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.0, "12"),
        (3.456, "3.46"),
        (123.45, "123.5"),
        (1204551.4, "1,204,551"),
        (0.00123, "0.00123"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_quantities_have_the_digits_that_matter(value, text):
    assert quantity(value) == text


def test_durations_are_in_the_unit_that_a_person_would_choose():
    assert [duration(s) for s in (0.42, 48, 125, 12_000)] == [
        *("0.42 s", "48 s", "2 min 5 s", "3 h 20 min")
    ]


# -- plots ------------------------------------------------------------------------------------


def test_shares_are_drawn_on_an_axis_from_nought_to_one():
    plot = interval_plot(
        "em", [("A", 0, estimate(0.5, 0.25, 0.75)), ("paper", None, estimate(1.0))]
    )
    ours, published = plot.marks
    width = plot.right - plot.left
    assert [tick.label for tick in plot.ticks] == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
    assert (ours.x, ours.low, ours.high) == tuple(plot.left + width * s for s in (0.5, 0.25, 0.75))
    assert published.x == plot.right and published.low is None and published.text == "100.0 %"


def test_an_axis_holds_values_that_are_no_shares_and_nought():
    plot = interval_plot("reward", [("A", 0, estimate(-3.0, -4.2, -1.0))])
    assert float(plot.ticks[0].label) <= -4.2 and float(plot.ticks[-1].label) >= 0.0
    assert plot.left < plot.marks[0].low < plot.marks[0].x < plot.marks[0].high < plot.right
    assert interval_plot("em", [("A", 0, estimate(None))]) is None


def test_a_curve_goes_through_its_points_from_left_to_right_and_up():
    plot = curve_plot("pass@k", "k", [("A", 0, {1: estimate(0.0), 4: estimate(1.0, 0.9, 1.0)})])
    first, last = plot.curves[0].points
    assert first.x < last.x <= plot.width and first.y == plot.bottom and last.y == 12
    assert plot.curves[0].path == f"M{first.x} {first.y} L{last.x} {last.y}"
    assert last.low > last.y == last.high  # SVG counts from the top.
    assert curve_plot("pass@k", "k", [("A", 0, {1: estimate(0.5)})]) is None


@given(st.dictionaries(st.sampled_from(["scored", "failed", "missing"]), st.integers(0, 10**6)))
def test_whatever_was_counted_is_seen_in_its_bar(counts):
    parts = bar(counts, width=160.0)
    assert {p.kind: p.samples for p in parts} == {k: v for k, v in counts.items() if v}
    assert all(p.width >= 1.0 for p in parts)
    if parts:
        assert sum(p.width for p in parts) == pytest.approx(160.0, abs=0.05)


# -- text that is not ours --------------------------------------------------------------------


def test_what_a_reader_would_not_see_is_spelled_out():
    assert visible("a\u202eb\x00c\u200bd\ud800") == "a[U+202E]b[U+0000]c[U+200B]d[U+D800]"
    assert visible("two\n\tlines שלום 好 👩‍🚀 é") == "two\n\tlines שלום 好 👩‍🚀 é"
    assert visible("e" + "\u0301" * 40) == "e" + "\u0301" * 3


@given(st.text(st.characters(), max_size=200))
def test_shown_text_can_be_written_and_moves_nothing(text):
    shown = visible(text)
    assert isinstance(shown.encode(), bytes) and not re.search(
        "[\u202a-\u202e\u2066-\u2069\x00\x1b\r]", shown
    )
    assert isinstance(encodable(text).encode(), bytes) and encodable(shown) == shown


def test_a_long_text_is_cut_with_a_note_of_how_much():
    text = "a" * 500_000 + "b" * 500_000
    cut = clipped(text, 300)
    assert (cut.head, cut.tail, cut.left_out) == ("a" * 200, "b" * 100, 999_700)
    assert "[999,700 characters left out]" in cut.text
    assert clipped("short", 5) == ("short", 0, "") and clipped("short", 5).text == "short"


def test_markdown_shows_hostile_text_as_text():
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(
        f"| a | b |\n| --- | --- |\n| {escaped(HOSTILE)} | {escaped('_x_ *y* ~~z~~ # $1$')} |\n"
    )
    found = set(re.findall(r"<(\w+)", rendered))
    assert found == {"table", "thead", "tr", "th", "tbody", "td"}
    assert rendered.count("<td") == 2 and "_x_ *y* ~~z~~ # $1$" in rendered
    assert "[a](javascript:alert(1)) [U+202E]txt.exe" in rendered
    assert len(escaped("x" * 1_000_000)) == 300


def test_a_call_is_shown_in_one_line_and_cut():
    assert call_text(ToolRecord("search", {"q": "a\nb", "n": 2}, True, 0.1)) == (
        'search(q="a\\nb", n=2)'
    )
    long = call_text(ToolRecord("run", {"code": "x" * 9_000}, False, 0.1))
    assert len(long) < 400 and long.endswith("(refused)") and "characters left out" in long


# -- conversations and examples ---------------------------------------------------------------


def test_a_conversation_is_taken_apart_at_the_marks_of_its_template():
    said = [(one.role, one.text) for one in conversation(sample("t"))]
    assert said == [
        ("system", "Be brief."),
        ("user", "How many?"),
        ("assistant", "Let me look."),
        ("tool", "four is 4"),
        ("assistant", "It is 4."),
    ]
    assert conversation(sample("t"))[2].calls[0].name == "search"


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("plain", [("user", "plain")]),
        ("", []),
        ("<|user|> How?<|end|><|assistant|>", [("user", "How?")]),
        ("<|user|> How?<|end|><|assistant|>Answer:", [("user", "How?"), ("assistant", "Answer:")]),
        (
            "<|start_header_id|>system<|end_header_id|>\n\nBe.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nGo<|eot_id|>",
            [("system", "Be."), ("user", "Go")],
        ),
        ("<|im_start|>wizard\nhi<|im_end|>", [("user", "hi")]),
        (
            "<|tools|>\n[]<|end|>\n<|system|>\nBe.<|end|>\n<|inline|>\nQ<|end|>\n",
            [("system", "[]"), ("system", "Be."), ("user", "Q")],
        ),
        ("before<|im_start|>user\nhi<|im_end|>\n", [("user", "before"), ("user", "hi")]),
    ],
)
def test_prompts_of_several_templates(prompt, wanted):
    found = conversation(sample("t", prompt=prompt, called=False))
    assert [(one.role, one.text) for one in found if one.turn is None] == wanted
    assert found[-2].role == "user"  # No call was made, so the observation is no tool's.


def test_examples_are_the_first_right_wrong_and_failed_ones_whatever_finished_first(tmp_path):
    lost = sample("t0", 1, failure="environment", error="gone")
    all_of_them = [*four_samples(), lost, sample("t9", score=0.5)]
    for name, order in (("a", all_of_them), ("b", all_of_them[::-1])):
        write(tmp_path / name, results([part()]), order)
    a, b = (examples(tmp_path / n / "samples.jsonl", {"toy@1": "correct"}) for n in "ab")
    assert a == b
    assert [(one.verdict, one.title) for one in a["toy@1"]] == [
        ("right", "t1, sample 0"),
        ("right", "t2, sample 0"),
        ("wrong", "t0, sample 0"),
        ("wrong", "t9, sample 0"),
        ("failed", "t0, sample 1"),
    ]
    assert ("error", "gone") in a["toy@1"][-1].facts


def test_a_sample_that_was_played_again_is_shown_as_it_ended(tmp_path):
    lost = sample("t1", failure="environment")
    folder = write(tmp_path, results([part()]), [lost, *four_samples()])
    found = examples(folder / "samples.jsonl", {"toy@1": "correct"})["toy@1"]
    assert "failed" not in [one.verdict for one in found]


def test_of_a_long_conversation_the_ends_are_shown(tmp_path):
    one = sample("t", action="x" * 100_000)
    long = one.texts * 50
    folder = write(tmp_path, results([part()]), [sample("t"), replace(one, texts=long)])
    (shown,) = examples(folder / "samples.jsonl", {"toy@1": "correct"})["toy@1"]
    notes = [line.text for line in shown.lines if line.role == "note"]
    # Two of the prompt, 50 actions with an observation and 50 last ones, of which 24 are shown.
    assert len(shown.lines) == 25 and notes == [f"{2 + 150 - 24} messages left out"]
    assert sum(len(line.text) for line in shown.lines) < 24 * 3_100


# -- whole reports ----------------------------------------------------------------------------


def test_failures_and_missing_samples_stand_beside_the_score(tmp_path):
    found = part(
        planned=6, scored=3, missing=1, failures={"environment": 2}, if_failures_were_wrong=0.45
    )
    lost = sample("t9", failure="environment", error="the host died")
    folder = write(tmp_path / "a", results([found]), [*four_samples(), lost])
    written = write_reports([folder])
    assert written == (folder / "report.html", folder / "report.md")
    page, table = written.page.read_text(), written.table.read_text()
    shown = texts(page)
    assert "75.0 % [30.0, 95.0] 45.0 % if failures were wrong 3 of 6 scored" in shown
    assert "2 2 environment 1" in shown and "the host died" in shown
    assert "A: 2 of 6 samples were lost to failures and count as neither right nor wrong." in shown
    assert "A: 1 of 6 samples have not been played" in shown
    assert (
        "| A | scripted:oracle | 75.0 % \\[30.0, 95.0] | 3 of 6 | 2 (2 environment) | 1 |" in table
    )


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path):
    named = HOSTILE.replace("\ud800", "")
    folder = write(
        tmp_path / "a",
        results([part()], policy=named),
        [sample(HOSTILE, prompt=HOSTILE, action=HOSTILE)],
    )
    page = write_reports([folder]).page.read_text()
    tags = set(re.findall(r"<(\w+)", page))
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form", "a"}
    assert not re.search(r"<[^>]*\s(src|href|on\w+)=", page)
    assert "default-src 'none'" in page and page.startswith("<!doctype html>")
    # The title and heading; the policy's name in the plot is cut. Nothing was evaluated.
    assert page.count("{{ 7 * 7 }}") >= 5 and "[U+202E]txt.exe" in page and "[U+D800]" in page


def test_two_evaluations_stand_side_by_side_with_what_sets_them_apart(tmp_path):
    a = write(tmp_path / "a", results([part(), part("other@2")]), four_samples())
    worse = [sample(f"t{n}", score=float(n == 3)) for n in range(4)]
    b = write(tmp_path / "b", results([part(value=0.25)], policy="runs/x", temperature=0.7), worse)
    written = write_reports([a, b], tmp_path / "both.html")
    shown = texts(written.page.read_text())
    assert "toy@1 75.0 % [30.0, 95.0] 25.0 % [30.0, 95.0]" in shown
    assert "other@2 75.0 % [30.0, 95.0] –" in shown
    assert "temperature differs: 0.0 in A, 0.7 in B" in shown
    # Two tasks were lost; of the four ways to flip two signs two are as far from 0.
    assert "B minus A, correct, on 4 tasks in common: -50.0 points [" in shown
    assert "These tasks do not show which is higher." in shown and "p = 0.5." in shown
    table = written.table.read_text()
    assert written.table == tmp_path / "both.md" and "B: runs/x" in table
    assert "- B minus A, correct, on 4 tasks in common: -50.0 points" in table


def test_evaluations_of_other_versions_are_shown_but_not_compared(tmp_path):
    a = write(tmp_path / "a", results([part()]), four_samples())
    b = write(tmp_path / "b", results([part("toy@2")]), four_samples("toy@2"))
    written = write_reports([a, b], tmp_path / "both.html")
    for shown in (texts(written.page.read_text()), written.table.read_text()):
        assert "No differences are shown: suite" in shown and "cannot be compared: version" in shown
        assert " minus " not in shown


def test_published_values_have_their_source_and_a_caution(tmp_path, monkeypatch):
    suite = Suite(
        name="toy",
        title="Toys",
        family="games",
        env="games/sokoban",
        references=(Reference("GPT-9", "correct", 0.905, "Someone 2026, table 3"),),
    )
    monkeypatch.setattr(report_model, "SUITES", {"toy": suite})
    folder = write(tmp_path / "a", results([part(), part("toy@2")]), four_samples())
    written = write_reports([folder])
    for text in (texts(written.page.read_text()), written.table.read_text()):
        assert "Someone 2026, table 3" in text and "differ between papers" in text
        assert text.count("table 3") == 1  # The other version's scores are other scores.
    assert "90.5 % published" in texts(written.page.read_text())


def test_values_that_are_not_known_are_no_nought(tmp_path):
    folder = write(tmp_path / "a", results([part()]), four_samples())
    with_nulls(folder / "results.json")
    shown = texts(write_reports([folder]).page.read_text())
    assert "correct samples failed missing how A – 4 of 4 scored" in shown


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"results\.json"):
        write_reports([tmp_path])


def test_results_of_another_format_are_refused(tmp_path):
    folder = write(tmp_path / "a", results([part()]), [])
    path = folder / "results.json"
    path.write_text(path.read_text().replace("agentrl.results/1", "agentrl.results/9"))
    with pytest.raises(DataError, match=r"results\.json.*format"):
        write_reports([folder])


def test_the_command_says_where_the_report_is(tmp_path):
    folder = write(tmp_path / "a", results([part()]), four_samples())
    done = CliRunner().invoke(app, ["report", str(folder), "--out", str(tmp_path / "r.html")])
    assert done.exit_code == 0, done.output
    assert done.output == f"{tmp_path / 'r.html'} and {tmp_path / 'r.md'}\n"
    refused = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert refused.exit_code == 2 and "results.json" in refused.output


@pytest.mark.slow
def test_an_evaluation_ends_with_its_report_and_so_does_scoring_it_again(tmp_path):
    out = tmp_path / "e"
    command = ["eval", "sokoban", "--policy", "scripted:oracle", "--tasks", "2", "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"its report is in {out / 'report.html'}" in done.output
    assert "100.0 %" in texts((out / "report.html").read_text())
    again = tmp_path / "again"
    done = CliRunner().invoke(app, ["rescore", str(out), "--out", str(again)])
    assert done.exit_code == 0, done.output
    assert "scored again" in texts((again / "report.html").read_text())


def test_reports_are_made_of_the_same_evaluations_the_same(tmp_path):
    folder = write(tmp_path / "a", results([part()]), four_samples())
    first = [path.read_bytes() for path in write_reports([folder])]
    again = [path.read_bytes() for path in write_reports([folder], tmp_path / "x" / "r.html")]
    assert first == again and sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        *("r.html", "r.md")
    ]


@pytest.mark.slow
@pytest.mark.browser
def test_in_a_browser_hostile_text_is_text_and_the_page_fits(tmp_path):
    from playwright.sync_api import sync_playwright

    named = HOSTILE.replace("\ud800", "")
    lost = sample("t9", failure="environment", error=HOSTILE)
    strange = [sample(HOSTILE, prompt=HOSTILE, action=HOSTILE), sample("z", action="x" * 1_000_000)]
    a = write(tmp_path / "a", results([part()], policy=named), [*strange, lost])
    b = write(tmp_path / "b", results([part(value=0.5)], policy="runs/x"), four_samples())
    written = write_reports([a, b], tmp_path / "both.html")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        asked, said = [], []
        for width, scheme in ((1200, "light"), (400, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.goto(written.page.as_uri())
            assert page.title().startswith("Evaluation of <script>")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("script, img, a, iframe").count() == 0
            assert page.locator("svg circle").count() == 2
            # Reading needs no script: what is folded opens by itself.
            first = page.locator("details").first
            assert not first.locator("pre").first.is_visible()
            first.locator("summary").click()
            assert "<img src=x onerror=" in first.locator("pre").first.inner_text()
            assert "characters left out]" in page.locator("body").inner_html()
            page.close()
        browser.close()
    assert set(asked) == {written.page.as_uri()} and said == []
