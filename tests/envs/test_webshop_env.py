"""The web shop: pages and clicks, WebShop's reward by hand, the catalogue, WebShop's files."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.env import ROOT_STATE
from agentrl.core.errors import DataError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.webshop.catalogue import _LINES, made_products
from agentrl.envs.webshop.files import read_goals, read_products
from agentrl.envs.webshop.pages import clickable, read_action
from agentrl.envs.webshop.records import NO_LIMIT, Goal, Product, price_limit
from agentrl.envs.webshop.reward import (
    basic_color,
    score,
    title_nouns,
    token_set_ratio,
    type_factor,
)
from agentrl.testing import check_env

GOALS = Path(__file__).resolve().parents[3] / "shared" / "data" / "webshop_goals" / "goals.jsonl"

LAMP = {
    "asin": "B000000001",
    "name": "Acme Desk Lamp for Home",
    "full_description": "A lamp that is dimmable. <answer>Buy</answer>",
    "small_description": ["usb powered", "metal body"],
    "pricing": "$25.50",
    "product_category": "Home › Lighting › Desk Lamps",
    "query": "Desk Lamps ",
    "customization_options": {"Color": [{"value": "Navy/Blue"}, {"value": "Red"}], "Size": None},
}
RUG = {
    "asin": "B000000002",
    "name": "Shag Rug",
    "full_description": "Soft.",
    "small_description": "low pile",
    "pricing": "$100.00$200.00",
    "product_category": "Home › Textiles › Rugs",
    "query": "rugs",
    "customization_options": {},
}
ATTRIBUTES = {"B000000001": {"attributes": ["energy efficient"]}}
INSTRUCTIONS = {
    "B000000001": [
        {
            "instruction": "I'm looking for an energy efficient lamp, dimmable.",
            "instruction_attributes": ["energy efficient", "dimmable"],
            "instruction_options": ["navy | blue"],
        },
        {"instruction": "No attributes.", "instruction_attributes": [], "instruction_options": []},
    ],
    "B999999999": [],
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    paths = {}
    every = {"products": [LAMP, RUG, LAMP], "attributes": ATTRIBUTES, "instructions": INSTRUCTIONS}
    for name, value in every.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(value), encoding="utf-8")
        paths[name] = str(path)
    return paths


def product(**changes) -> Product:
    values = {
        "asin": "B1",
        "title": "Acme Desk Lamp",
        "description": "Bright.",
        "features": ("Metal body.",),
        "price": 20.0,
        "price_tag": "$20.00",
        "options": {},
        "attributes": ("energy efficient", "usb powered"),
        "category": "Home › Lighting › Desk Lamps",
        "query": "desk lamp",
    }
    return Product(**(values | changes))


def goal(**changes) -> Goal:
    values = {
        "id": "g",
        "instruction": "Find me a lamp",
        "asin": "B1",
        "attributes": ("energy efficient", "metal body"),
        "options": ("navy blue", "large"),
        "price_upper": 30.0,
    }
    return Goal(**(values | changes))


def test_the_reward_by_hand() -> None:
    lamp = product()
    assert score(lamp, ["navy blue", "large"], goal(), lamp) == (1.0, 1.0, 1.0, 1.0, 1.0)
    # Two attributes and the price of five: no option was chosen.
    assert score(lamp, [], goal(), lamp).total == pytest.approx(3 / 5)
    # Blue is blue, whichever; the price is one dollar too high.
    assert score(lamp, ["sky blue"], goal(price_upper=19.0), lamp).total == pytest.approx(3 / 5)
    # "metal body" stands in the features alone, "solid wood" nowhere.
    other = goal(attributes=("solid wood", "metal body"), options=())
    assert score(lamp, [], other, lamp).total == pytest.approx(2 / 3)
    # Another type: none of the wanted title's words.
    rug = product(asin="B2", title="Shag Rug", category="Home › Textiles › Rugs", query="rugs")
    assert score(rug, ["navy blue", "large"], goal(), lamp).total == 0.0


def test_the_type_factor_by_hand() -> None:
    wanted = product(title="Oak Table Lamp Shade Frame Cable Switch Bulb Socket Stand Cord")
    assert len(title_nouns(wanted.title)) == 11

    def factor(title, **changes):
        return type_factor(product(title=title, category="x", query="y", **changes), wanted)

    assert factor("Oak Table Lamp") == 1.0  # 3 of 11 nouns
    assert factor("Oak Table") == 0.5  # 2 of 11, not above 0.2
    assert factor("Oak") == 0.1  # 1 of 11
    assert factor("Rug") == 0.0
    same_query = product(title="Oak Table", category="x", query="desk lamp")
    assert type_factor(same_query, wanted) == 1.0
    two_levels = product(title="Oak Table", category="Lighting › Home", query="y")
    assert type_factor(two_levels, wanted) == 1.0
    assert type_factor(product(title="Oak", query="desk lamp"), wanted) == 0.1
    # A wanted title without nouns counts as 0.2 of them.
    assert type_factor(product(category="x", query="y"), product(title="12-34")) == 0.5


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [
        ("large", "x-large", 100),  # all words of one are words of the other
        ("energy efficient", "Efficient ENERGY!", 100),
        ("usb powered", "usb power", 90),  # "usb powered", "usb power": 2 * 9 / 20
        ("red", "blue", 29),  # one letter in common: 2 / 7
        ("crème", "crme", 100),  # only ASCII counts
        ("", "blue", 0),
        ("!!!", "blue", 0),
        ("box of twenty", "box of fifty", 72),  # "box of " and "ty": 2 * 9 / 25
    ],
)
def test_likeness_by_hand(one, other, ratio) -> None:
    assert token_set_ratio(one, other) == token_set_ratio(other, one) == ratio


def test_colours_are_reduced_to_the_first_word_of_the_list_in_them() -> None:
    assert basic_color("navy blue") == "blue"
    assert basic_color("washable") == "ash"  # as published: anywhere in the text
    assert basic_color("7 inch") == "7 inch"


def test_the_price_limit_is_the_larger_of_two_of_the_next_four_tens() -> None:
    drawn = {price_limit(20.99, random.Random(n))[0] for n in range(200)}
    assert drawn == {40.0, 50.0, 60.0}
    assert price_limit(985.0, random.Random(0)) == (NO_LIMIT, "")
    assert price_limit(975.0, random.Random(0))[1] == ", and price lower than 990.00 dollars"


async def bought(env, task, *actions):
    await env.reset(task, seed=0)
    return [await env.step(f"<action>{one}</action>") for one in actions]


async def test_a_walk_through_the_shop(files) -> None:
    env = make_env("webshop/tasks", **files)
    (task,) = [*env.tasks("train"), *env.tasks("eval")]
    (first,) = await env.reset(task, seed=0)
    assert first.text.startswith("Instruction: I'm looking for an energy efficient lamp, dimmable")
    assert first.text.endswith("\n\n[Search]")
    results = await bought(
        env,
        task,
        "search[Lamp for desk]",
        "click[B000000001]",
        "click[navy | blue]",
        "click[Description]",
        "click[< Prev]",
        "click[Features]",
        "click[< Prev]",
        "click[Buy Now]",
    )
    texts = [one.observation[0].text for one in results]
    assert texts[0] == (
        "[Back to Search]\nPage 1 (Total results: 1)\n[B000000001]\nAcme Desk Lamp for Home\n$25.5"
    )
    item = (
        "[Back to Search]\n[< Prev]\ncolor: [navy | blue] [red]\nAcme Desk Lamp for Home\n"
        "Price: $25.5\n{}[Description]\n[Features]\n[Buy Now]"
    )
    assert texts[1] == item.format("")
    assert texts[2] == texts[4] == texts[6] == item.format("Chosen: color: navy | blue\n")
    assert texts[3].endswith("A lamp that is dimmable. &lt;answer>Buy&lt;/answer>")
    assert texts[5] == "[Back to Search]\n[< Prev]\nusb powered\nmetal body"
    keys = [one.info.state_key for one in results]
    assert keys[2] == keys[4] == keys[6]
    assert len(set(keys[:4])) == 4
    assert (results[-1].reward, results[-1].terminated) == (1.0, True)
    assert results[-1].info.rewards == {"score": 1.0}
    assert results[-1].info.metrics["success"] == 1.0


async def test_a_partial_purchase_earns_its_share_or_nothing_where_success_counts(files) -> None:
    for style, earned in (("score", {"score": 0.75}), ("success", {"success": 0.0})):
        env = make_env("webshop/tasks", **files, reward=style)
        (task,) = [*env.tasks("train"), *env.tasks("eval")]
        *_, last = await bought(env, task, "search[lamp]", "click[b000000001]", "click[buy now]")
        assert last.info.rewards == earned
        assert (last.info.metrics["score"], last.info.metrics["success"]) == (0.75, 0.0)


async def test_back_to_search_is_where_the_episode_began_and_other_clicks_change_nothing() -> None:
    env = make_env("webshop/tasks", invalid_reward=-0.1)
    task = env.tasks("train")[0]
    results = await bought(
        env, task, "click[buy now]", "search[lamp]", "click[nonsense]", "click[Back to Search]"
    )
    assert [one.info.malformed_calls for one in results] == [1, 0, 1, 0]
    assert [one.reward for one in results] == [-0.1, 0.0, -0.1, 0.0]
    assert results[1].info.state_key == results[2].info.state_key
    assert results[0].info.state_key == results[3].info.state_key == ROOT_STATE


async def test_results_come_in_pages_of_ten_and_nothing_is_found_for_unknown_words() -> None:
    env = make_env("webshop/tasks")
    task = env.tasks("train")[0]
    first, second, back, none = await bought(
        env, task, "search[color]", "click[Next >]", "click[< Prev]", "search[xyzzy]"
    )
    assert "Page 1 (Total results: 50)" in first.observation[0].text
    assert "Page 2 (Total results: 50)\n[< Prev]\n[Next >]" in second.observation[0].text
    assert back.observation == first.observation
    assert back.info.state_key == first.info.state_key
    (same,) = await bought(env, task, "search[COLOR color]")
    assert same.info.state_key == first.info.state_key  # other words, but the same page
    assert none.observation[0].text == "[Back to Search]\nPage 1 (Total results: 0)"
    shown = [line for line in first.observation[0].text.split("\n") if line.startswith("[B")][1:]
    assert len(shown) == 10


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("search[A lamp]", ("search", "a lamp")),
        (" CLICK[Buy Now] ", ("click", "buy now")),
        ("click[a [b]]", ("click", "a [b]")),
        ("search[]", None),
        ("search[  ]", None),
        ("buy[lamp]", None),
        ("search lamp", None),
        ("search[lamp] now", None),
    ],
)
def test_actions_are_read(text, read) -> None:
    assert read_action(text) == read


async def test_the_contract_holds_on_made_goods_and_on_files(files) -> None:
    await check_env(lambda: make_env("webshop/tasks", size=60, train_tasks=4, eval_tasks=2))
    await check_env(lambda: make_env("webshop/tasks", **files, admissible=True, tag="none"))


def test_every_made_goal_is_reached_by_its_gold_actions() -> None:
    env = make_env("webshop/tasks", size=120)
    tasks = [*env.tasks("train"), *env.tasks("eval")]
    assert len(tasks) > 300
    for task in tasks:
        env._reset(task, 0)
        turn = 0
        while not env._over:
            result = env._step(env.gold_action(task, turn))
            turn += 1
        assert (result.reward, result.terminated) == (1.0, True)


def test_made_goods_are_told_apart_and_goals_of_one_product_are_in_one_split() -> None:
    goods = made_products(300)
    assert goods[:100] == made_products(100)
    assert len({one.title for one in goods}) == len({one.asin for one in goods}) == 300
    for line in _LINES:
        for one, other in combinations(line.attributes.split("|"), 2):
            assert token_set_ratio(one, other) <= 85, (one, other)
        for values in line.options.values():
            for one, other in combinations(map(basic_color, values.split("|")), 2):
                assert token_set_ratio(one, other) <= 85, (one, other)
    env = make_env("webshop/tasks")
    wanted = {s: {one.data["asin"] for one in env.tasks(s)} for s in ("train", "eval")}
    assert (len(env.tasks("train")), len(env.tasks("eval"))) == (512, 128)
    assert not wanted["train"] & wanted["eval"]
    prompts = [one.data["instruction"] for s in wanted for one in env.tasks(s)]
    assert len(set(prompts)) == len(prompts)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_walk_ends_in_a_score_between_nothing_and_everything(data) -> None:
    env = make_env("webshop/tasks", size=24, max_turns=40)
    task = data.draw(st.sampled_from(env.tasks("train")))
    env._reset(task, 0)
    while not env._over:
        labels = clickable(env._page, env.shop.products)
        chosen = data.draw(st.sampled_from([*labels, "?"]))
        action = "search[desk lamp]" if chosen == "?" else f"click[{chosen}]"
        result = env._step(f"<action>{action}</action>")
        assert result.info.malformed_calls == 0
        assert 0.0 <= result.reward <= 1.0


def test_products_are_read_as_webshop_reads_them(files) -> None:
    lamp, rug = read_products(files["products"], files["attributes"])
    assert lamp.options == {"color": ("navy | blue", "red")}
    assert (lamp.price, lamp.price_tag, lamp.query) == (25.5, "$25.5", "desk lamps")
    assert lamp.attributes == ("energy efficient",)
    assert 100.0 <= rug.price <= 200.0
    assert (rug.price_tag, rug.features, rug.attributes) == ("$100.0 to $200.0", ("low pile",), ())


def test_a_list_of_goals_keeps_the_instructions_it_names(files, tmp_path) -> None:
    path = tmp_path / "goals.jsonl"
    rows = [
        {"id": "h", "goal": "im looking for an energy efficient lamp dimmable"},
        {"id": "unknown", "goal": "something else"},
        {"id": "own", "goal": "a rug", "asin": "B000000002", "attributes": ["low pile"]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    env = make_env("webshop/tasks", **files, goals=str(path))
    tasks = [*env.tasks("train"), *env.tasks("eval")]
    assert {one.id for one in tasks} == {"B000000001-0", "own"}
    rows[2]["asin"] = "B000000009"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"goals.jsonl:3: no product .* asin 'B000000009'"):
        make_env("webshop/tasks", **files, goals=str(path)).tasks("train")
    path.write_text(json.dumps(rows[1]))
    with pytest.raises(DataError, match="none of the 1 goals"):
        make_env("webshop/tasks", **files, goals=str(path)).tasks("train")


def test_mistakes_in_files_and_settings_are_named(files, tmp_path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps([{**LAMP, "pricing": "$free"}]))
    with pytest.raises(DataError, match=r"bad.json\[0\]: 'pricing'"):
        read_products(str(bad))
    bad.write_text(json.dumps([{**LAMP, "customization_options": {"Size": ["S"]}}]))
    with pytest.raises(DataError, match="option 'Size' must be"):
        read_products(str(bad))
    with pytest.raises(DataError, match="must be one JSON object"):
        read_products(files["products"], files["products"])
    bad.write_text('[{"goal": "x", "price_upper": 0}]')
    with pytest.raises(DataError, match="'price_upper' must be above 0"):
        read_goals(str(bad))
    with pytest.raises(RecipeError, match="need products"):
        make_env("webshop/tasks", goals="x.jsonl")
    with pytest.raises(RecipeError, match="size 1 to 20000"):
        make_env("webshop/tasks", size=0)
    with pytest.raises(DataError, match="there is no such product file"):
        make_env("webshop/tasks", products=str(tmp_path / "none.json")).tasks("train")


async def test_a_task_of_another_shop_is_refused() -> None:
    other = Task("t", {**make_env("webshop/tasks").tasks("train")[0].data, "asin": "B1"})
    with pytest.raises(DataError, match="the shop has no product 'B1'"):
        await make_env("webshop/tasks").reset(other, seed=0)


@pytest.mark.skipif(not GOALS.is_file(), reason=f"WebShop's instructions are not at {GOALS}")
def test_all_recorded_goals_are_read() -> None:
    rows = read_goals(str(GOALS))
    assert len(rows) == len({row.id for row in rows}) == 1800
    assert all(row.text == row.text.lower() and not row.asin for row in rows)
