"""MiniWoB++ in a real browser: problems, time, reward, actions, and what a policy cannot do."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from agentrl.core.errors import EnvError, SetupError
from agentrl.core.types import Image, Task
from agentrl.envs.miniwob import MiniWobEnv
from agentrl.envs.miniwob.browser import PROGRAMS, shared_pool
from agentrl.envs.miniwob.view import pages_of, task_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "miniwob_tasks" / "tasks.jsonl"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        not any(map(shutil.which, PROGRAMS)), reason="no Chromium: apt-get install chromium"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("miniwob") is None, reason='pip install "agentrl[miniwob]"'
    ),
]


@pytest.fixture
async def env():
    made = MiniWobEnv()
    yield made
    await made.close()


def task(page: str, seed: int = 0) -> Task:
    return Task(f"{page}/{seed}", {"page": page, "seed": seed})


async def start(env: MiniWobEnv, page: str, seed: int = 0) -> str:
    (message,) = await env.reset(task(page, seed), seed=0)
    return message.text


def ref(shown: str, **wanted: str) -> int:
    """The reference of the element with that id, tag or text."""
    for node in pages_of([shown])[-1]:
        if all(getattr(node, key) == value for key, value in wanted.items()):
            return node.ref
    raise AssertionError(f"{wanted} is not in {shown}")


async def inside(env: MiniWobEnv, script: str) -> object:
    """What `script` gives in the page of the episode: the tests' own way in, no policy's."""
    pool = shared_pool(env.browser)
    return await pool.run(env._session._page.evaluate(script), seconds=10)


@pytest.mark.skipif(not DATA.is_file(), reason=f"the data set miniwob_tasks is not at {DATA}")
async def test_problems_are_those_of_upstream_for_the_same_seed(env):
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]
    wrong = {}
    for number, row in enumerate(rows):
        example = row["examples"][number % len(row["examples"])]
        said = task_of([await start(env, row["task"], example["seed"])])
        if said != example["utterance"]:
            wrong[row["task"], example["seed"]] = (said, example["utterance"])
    assert len(rows) == 75
    assert wrong == {}


async def test_a_right_click_earns_one_and_a_wrong_one_nothing(env):
    text = await start(env, "click-test-2", 1)
    result = await env.step(f"click({ref(text, text='ONE')})")
    assert (result.reward, result.terminated, result.observation) == (1.0, True, ())
    assert result.info.metrics["success"] == 1.0
    text = await start(env, "click-test-2", 1)
    result = await env.step(f"click({ref(text, text='TWO')})")
    assert (result.reward, result.terminated) == (0.0, True)
    with pytest.raises(EnvError):
        await env.step("wait()")


@pytest.mark.parametrize(
    ("kind", "rewards"), [("raw", [0.1, 1.0]), ("binary", [0.0, 1.0]), ("time_scaled", [0.1, 0.9])]
)
async def test_a_page_that_gives_part_of_a_point(kind, rewards):
    # A card that is not the greatest earns 0.1; of ten seconds half a one and a bit go by.
    env = MiniWobEnv(reward=kind)
    earned = set()
    for card in range(3):
        text = await start(env, "find-greatest", 0)
        cards = [node for node in pages_of([text])[-1] if "card" in node.classes]
        shown = (await env.step(f"click({cards[card].ref})")).observation[0].text
        last = await env.step(f"click({ref(shown, tag='button')})")
        earned.add(round(last.reward, 6))
    await env.close()
    # The second press comes when its pointer has rested for 50 ms.
    scale = 1 - 0.55 / 10 if kind == "time_scaled" else 1.0
    full = [0.1 * scale, 1.0 * scale] if kind == "time_scaled" else rewards
    assert sorted(earned) == pytest.approx(full)


async def test_only_the_pages_own_time_counts_and_its_limit_truncates(env):
    text = await start(env, "click-test")
    # Half a second for each action, and what a wait asks for, of the page's ten seconds.
    await env.step("wait()")
    await env.step("wait(2000)")
    assert await inside(env, "() => Date.now() - core.ept0") == 2500
    assert await inside(env, "() => core.EPISODE_MAX_TIME") == 10000
    malformed = await env.step("hello")
    assert malformed.info.malformed_calls == 1
    assert malformed.observation[0].text.startswith("error: no action")
    refused = await env.step("click(99)")
    assert refused.observation[0].text == "error: there is no element [99]."
    assert refused.info.malformed_calls == 0
    assert await inside(env, "() => Date.now() - core.ept0") == 2500
    result = await env.step("wait(7500)")
    assert (result.reward, result.terminated, result.truncated) == (0.0, False, True)
    assert "Click the button" in text


async def test_an_episode_ends_after_its_turns():
    env = MiniWobEnv(max_turns=2)
    await start(env, "click-test")
    first, last = await env.step("wait()"), await env.step("hello")
    assert (first.truncated, last.truncated, last.terminated) == (False, True, False)
    assert last.info.malformed_calls == 1
    await env.close()


async def test_what_cannot_be_done_is_said_and_costs_no_time(env):
    text = await start(env, "login-user-popup", 1)
    name = ref(text, id="username")
    shown = (await env.step(f'type({name}, "x")')).observation[0].text
    over = [node.ref for node in pages_of([shown])[0] if node.ref >= ref(shown, id="popup")]
    said = (await env.step(f"click({name})")).observation[0].text
    assert said in {f"error: the element [{name}] is covered by [{one}]." for one in over}
    for action, why in {
        "click_xy(500, 10)": "outside of the window of 332 x 214",
        f'select({name}, "x")': "is no list of options",
    }.items():
        assert why in (await env.step(action)).observation[0].text
    text = await start(env, "choose-list")
    box = ref(text, tag="select")
    assert "has no option 'x'" in (await env.step(f'select({box}, "x")')).observation[0].text
    both = await env.step(f'select({box}, "x", "y")')
    assert "takes one option" in both.observation[0].text


async def test_references_stay_with_their_elements(env):
    text = await start(env, "enter-text")
    field = ref(text, id="tt")
    shown = (await env.step(f'type({field}, "ab")')).observation[0].text
    shown = (await env.step(f'type({field}, "c")')).observation[0].text
    ((page,),) = [pages_of([shown])]
    assert [(n.ref, n.value, n.flags) for n in page if n.id == "tt"] == [
        (field, "abc", ("focused",))
    ]
    shown = (await env.step('press("Backspace")')).observation[0].text
    assert [n.value for n in pages_of([shown])[0] if n.id == "tt"] == ["ab"]


async def test_each_episode_has_a_clipboard_of_its_own(env):
    other = MiniWobEnv()
    text = await start(env, "enter-text")
    await env.step(f'type({ref(text, id="tt")}, "secret")')
    await env.step('press("Control+a")')
    await env.step('press("Control+c")')
    theirs = await start(other, "enter-text")
    await other.step(f"click({ref(theirs, id='tt')})")
    shown = (await other.step('press("Control+v")')).observation[0].text
    assert [n.value for n in pages_of([shown])[0] if n.id == "tt"] == [""]
    await env.step('press("End")')
    shown = (await env.step('press("Control+v")')).observation[0].text
    assert [n.value for n in pages_of([shown])[0] if n.id == "tt"] == ["secretsecret"]
    await other.close()


HACKS = (
    "<img src=x onerror=core.endEpisode(1)>",
    "<svg onload=core.endEpisode(1)>",
    "<a href=javascript:core.endEpisode(1)>go</a>",
    "<iframe src=javascript:parent.core.endEpisode(1)></iframe>",
    "javascript:core.endEpisode(1)",
)


async def test_nothing_that_is_typed_becomes_a_script(env):
    # The terminal writes what is typed into its page as HTML.
    text = await start(env, "terminal", 1)
    await env.step(f"click({ref(text, id='terminal')})")
    shown = ""
    for hack in HACKS:
        result = await env.step(f"type({json.dumps(hack + chr(10))})")
        assert not result.terminated
        shown = result.observation[0].text
    links = [node for node in pages_of([shown])[-1] if node.tag == "a"]
    assert links, shown
    result = await env.step(f"click({links[0].ref})")
    assert not result.terminated
    assert await inside(env, "() => WOB_DONE_GLOBAL") is False


# One pixel.
PIXEL = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    b"rkJggg=="
)


class Listener(BaseHTTPRequestHandler):
    """Writes down that somebody came."""

    came: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.came.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


async def test_links_and_addresses_lead_nowhere(env, tmp_path):
    shown = tmp_path / "secret.png"
    shown.write_bytes(PIXEL)
    server = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    text = await start(env, "terminal", 1)
    await env.step(f"click({ref(text, id='terminal')})")
    before = await inside(env, "() => location.href")
    for target in (address, "file:///etc/passwd", "click-test.html", "data:text/html,x"):
        for extra in ("", " target=_blank"):
            link = f"<a href='{target}'{extra}>go</a><img src='{address}i'>"
            page = (await env.step(f"type({json.dumps(link + chr(10))})")).observation[0].text
            found = [node for node in pages_of([page])[-1] if node.tag == "a"][-1]
            await env.step(f"click({found.ref})")
            if env._turn > 16:
                text = await start(env, "terminal", 1)
                await env.step(f"click({ref(text, id='terminal')})")
    assert await inside(env, "() => location.href") == before
    pictures = f"<img class=seen src='{shown.as_uri()}'><video class=seen src='{shown.as_uri()}'>"
    await env.step(f"type({json.dumps(pictures + chr(10))})")
    sizes = "() => [...document.querySelectorAll('.seen')].map(one => one.naturalWidth || 0)"
    assert await inside(env, sizes) == [0, 0]
    assert len(env._session._slot.context.pages) == 1
    server.shutdown()
    assert Listener.came == []


async def test_the_reward_and_the_query_are_not_in_the_picture():
    env = MiniWobEnv(observation="both")
    (first,) = await env.reset(task("click-test", 1), seed=0)
    picture = first.parts[1]
    assert isinstance(picture, Image) and picture.data.startswith(b"\x89PNG")
    assert int.from_bytes(picture.data[16:20], "big") == 160
    assert int.from_bytes(picture.data[20:24], "big") == 210
    assert "reward" not in first.text.lower() and "Last" not in first.text
    seen = await inside(
        env,
        "() => ['query', 'reward-display', 'click-canvas'].map("
        "id => getComputedStyle(document.getElementById(id)).visibility)",
    )
    assert seen == ["hidden"] * 3
    # A query with a picture of its own stays, since words do not say what it shows.
    await env.reset(task("use-colorwheel-2", 1), seed=0)
    visible = "() => getComputedStyle(document.getElementById('query')).visibility"
    assert await inside(env, visible) == "visible"
    await env.close()


@pytest.mark.parametrize("page", ["click-dialog-2", "click-collapsible-2", "use-spinner"])
async def test_pictures_and_texts_are_the_same_each_time(page):
    played = []
    for _ in range(2):
        env = MiniWobEnv(observation="both")
        results = [(await env.reset(task(page, 1), seed=0))]
        while True:
            texts = ["".join(message.text for message in one) for one in results]
            step = await env.step(env.expert_action(task(page, 1), texts))
            if step.terminated:
                break
            results.append(step.observation)
        assert step.reward == 1.0
        played.append(results)
        await env.close()
    assert played[0] == played[1]


async def test_a_machine_without_chromium_is_told_how_to_get_it():
    env = MiniWobEnv(executable="/nowhere/chromium")
    with pytest.raises(SetupError, match="apt-get install chromium"):
        await env.reset(task("click-test"), seed=0)
    await env.close()
