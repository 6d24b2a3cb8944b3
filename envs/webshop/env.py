"""The web shop environment: search, look, choose options and buy what was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from agentrl.core.env import Observation
from agentrl.core.errors import DataError, RecipeError
from agentrl.core.formats import make_format
from agentrl.core.types import Task

from ..games.base import Played, Tag, TextGame
from .pages import BUY, NEXT, PAGE_SIZE, Page, clickable, follow, read_action, written
from .records import Goal
from .reward import Score, score
from .shop import Shop, Sources, open_shop

RewardStyle: TypeAlias = Literal["score", "success"]

_NO_SCORE = Score(0.0, 0.0, 0.0, 0.0, 0.0)
_FORMAT = make_format("xml", ())


class WebShopEnv(TextGame):
    """A shop and an instruction: find the product, choose its options, buy it.

    Observation: the instruction and the search page; then the page that each action leads to,
    what can be clicked in brackets. With `admissible` the clicks are also listed below it.
    Action: `search[words]` from any page, up to 50 products in pages of 10; `click[label]` of
    something on the page: a product's id, an option's value, `Next >`, `< Prev`,
    `Back to Search`, `Description`, `Features`, `Buy Now`. Letter case does not matter. What the
    page does not offer is not valid and changes nothing.
    Reward: `score`, WebShop's (see `reward.score`), when something is bought, else 0.0; with
    `reward="success"` the component is `success`, 1.0 where the score is 1.0. Metrics `score`,
    `success` and the parts `type`, `attributes`, `options`, `price`.
    Ends: terminated by buying; truncated after `max_turns` actions.
    Data: `size` products made by seed and up to three goals for each, of which `train_tasks` and
    `eval_tasks` are used. Or WebShop's files (MIT; its products are scraped and not ours to
    give): `products`, `attributes`, `instructions`, and `goals`, a list of goals to keep (see
    `files`). No product is wanted in both splits.
    Gold: searches for the instruction, or the title, goes to the product and buys it.
    """

    def __init__(
        self,
        *,
        size: int = 480,
        train_tasks: int = 512,
        eval_tasks: int = 128,
        products: str = "",
        attributes: str = "",
        instructions: str = "",
        goals: str = "",
        reward: RewardStyle = "score",
        admissible: bool = False,
        max_turns: int = 15,
        tag: Tag = "action",
        invalid_reward: float = 0.0,
    ) -> None:
        super().__init__(max_turns=max_turns, tag=tag, invalid_reward=invalid_reward)
        if not 1 <= size <= 20_000 or min(train_tasks, eval_tasks) < 0:
            raise RecipeError(
                "webshop/tasks needs size 1 to 20000 and 0 or more tasks, got "
                f"size={size}, train_tasks={train_tasks}, eval_tasks={eval_tasks}"
            )
        if not products and (attributes or instructions or goals):
            raise RecipeError("webshop/tasks: attributes, instructions and goals need products")
        self.sources = Sources(size, products, attributes, instructions, goals)
        self.amounts = {"train": train_tasks, "eval": eval_tasks}
        self.reward: RewardStyle = reward
        self.admissible = admissible
        self._shop: Shop | None = None
        self._ready = False

    @property
    def shop(self) -> Shop:
        """The shop, shared by all environments with the same sources; opened when asked for."""
        if self._shop is None:
            self._shop = open_shop(self.sources)
        return self._shop

    def tasks(self, split: str) -> Sequence[Task]:
        """The goals of `split`.

        Raises:
            DataError: a file is missing or malformed.
        """
        if split not in self.amounts:
            return ()
        goals = self.shop.goals[split]
        if not (self.sources.instructions or self.sources.goals):
            goals = goals[: self.amounts[split]]
        return [Task(goal.id, _data(goal)) for goal in goals]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode of `task`; the first one opens the shop."""
        if not self._ready:
            self._shop = await asyncio.to_thread(lambda: open_shop(self.sources).ready())
            self._ready = True
        return await super().reset(task, seed=seed)

    def begin(self, task: Task, *, seed: int) -> str:
        """The instruction and the search page; the seed changes nothing."""
        data = task.data
        self._goal = Goal(
            task.id,
            data["instruction"],
            data["asin"],
            tuple(data["attributes"]),
            tuple(data["options"]),
            data["price_upper"],
        )
        if self._goal.asin not in self.shop.products:
            raise DataError(f"task {task.id!r}: the shop has no product {self._goal.asin!r}")
        self._page = Page()
        self._score = _NO_SCORE
        how = (
            f"Write {self.written('search[words]')} to search, or {self.written('click[label]')} "
            f"to click something in brackets. You have {self.max_turns} turns."
        )
        return f"Instruction: {_FORMAT.neutral(self._goal.instruction)}\n\n{how}\n\n{self._shown()}"

    def play(self, command: str) -> Played:
        """Search or click."""
        read = read_action(command)
        if read is not None and read.verb == "search":
            found = self.shop.search(read.text)
            self._page = Page("results", found)
            return Played(self._shown())
        labels = clickable(self._page, self.shop.products)
        if read is None or read.text not in labels:
            return Played(f"Nothing like that is on the page.\n\n{self._shown()}", valid=False)
        following = follow(self._page, read.text, self.shop.products)
        if read.text == BUY and following == self._page:
            return self._buy()
        self._page = following
        return Played(self._shown())

    def state(self) -> str:
        """The goal and the page."""
        return f"{self._goal.id}\n{self._page!r}"

    def metrics(self) -> Mapping[str, float]:
        """The score, whether it is full, and its parts; all 0.0 where nothing was bought."""
        total, *parts = self._score
        named = dict(zip(Score._fields[1:], parts, strict=True))
        return {"score": total, "success": float(total >= 1.0), **named}

    def gold_action(self, task: Task, turn: int) -> str | None:
        """A search that shows the product, the way to it, its options, and buying it."""
        actions = self._way(task)
        return self.written(actions[turn]) if turn < len(actions) else None

    def _way(self, task: Task) -> list[str]:
        shop, asin = self.shop, task.data["asin"]
        product = shop.products[asin]
        queries = (task.data["instruction"], product.title)
        places = [
            (found.index(asin), query) for query in queries if asin in (found := shop.search(query))
        ]
        if not places:
            return []
        place, query = min(places, key=lambda one: one[0] // PAGE_SIZE)
        turns = [f"click[{NEXT}]"] * (place // PAGE_SIZE)
        options = [f"click[{value}]" for value in dict.fromkeys(task.data["options"])]
        return [f"search[{query}]", *turns, f"click[{asin.lower()}]", *options, f"click[{BUY}]"]

    def _buy(self) -> Played:
        products = self.shop.products
        chosen = [value for _, value in self._page.chosen]
        wanted = products[self._goal.asin]
        self._score = score(products[self._page.asin], chosen, self._goal, wanted)
        total = self._score.total
        earned = {"score": total} if self.reward == "score" else {"success": float(total >= 1.0)}
        return Played(f"You bought {self._page.asin}. Score: {total:.3f}.", earned, ended=True)

    def _shown(self) -> str:
        products = self.shop.products
        text = _FORMAT.neutral(written(self._page, products))
        if not self.admissible:
            return text
        clicks = [f"click[{label}]" for label in clickable(self._page, products)]
        return f"{text}\n\nAdmissible actions: {', '.join(['search[words]', *clicks])}"


def _data(goal: Goal) -> dict[str, object]:
    return {
        "instruction": goal.instruction,
        "asin": goal.asin,
        "attributes": list(goal.attributes),
        "options": list(goal.options),
        "price_upper": goal.price_upper,
    }
