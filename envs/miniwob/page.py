"""One episode on one page: started from a seed, looked at, acted on with mouse and keyboard."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from agentrl.core.errors import EnvError

from .actions import Action, Click, Drag, Hover, Place, Point, Press, Scroll, Select, Type
from .browser import HEIGHT, WIDTH, BrowserPool, Slot

AREA_WIDTH, AREA_HEIGHT = 160, 210
"""Size of the task area in the upper left corner of a page's window, in pixels."""

_HOVER_MS: Final = 50
_DRAG_MOVES: Final = 8
_SHOTS: Final = 10
_POLL_SECONDS: Final = 0.005
_ATTEMPTS: Final = 2
# The next episode starts with the pointer where no page has anything.
_PARKED: Final = (WIDTH - 2, HEIGHT - 2)
_TEXT_FIELDS: Final = ("text", "password", "search", "textarea", "email", "tel", "url", "number")
# Fields made of several, of which a click chooses one: typing starts at the first.
_PARTED_FIELDS: Final = ("date", "time", "datetime-local", "month", "week")
_MOST_PARTS: Final = 6


class RefusedError(Exception):
    """An action that cannot be done on the page as it is; the message is told to the policy."""


class Ending(NamedTuple):
    """How a page ended its episode: its raw and its time-scaled reward, and its own words."""

    raw: float
    scaled: float
    reason: str


class Look(NamedTuple):
    """What is on a page: nodes in document order (`page.js`), and the end if it has come."""

    nodes: list[Mapping[str, Any]]
    ending: Ending | None
    milliseconds: float


class Session:
    """An episode's hold on a page; all methods run in the pool's thread (`BrowserPool.run`)."""

    def __init__(self, pool: BrowserPool) -> None:
        self._pool = pool
        self._slot: Slot | None = None
        self._clipboard = ""

    async def open(self, address: str, seed: int, *, seconds: float) -> str:
        """Load the page at `address` anew and start its episode; returns its task in words.

        A page or browser that has died since its last episode is replaced once. `seconds` bounds
        the wait for a page while all of them are in use.
        """
        for attempt in range(_ATTEMPTS):
            try:
                self._slot = await self._pool.lease(seconds=seconds)
                return await self._start(self._slot, address, seed)
            except BaseException as error:
                await self.end(healthy=False)
                last = attempt == _ATTEMPTS - 1
                if last or not isinstance(error, Exception) or isinstance(error, EnvError):
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _start(self, slot: Slot, address: str, seed: int) -> str:
        slot.address = address
        slot.loading.clear()
        await slot.page.mouse.move(*_PARKED)
        await slot.page.goto(address)
        while not await slot.page.evaluate(
            "() => { __episode.advance(1); return __episode.ready() }"
        ):
            await asyncio.sleep(_POLL_SECONDS)
        return str(await slot.page.evaluate("seed => __episode.start(seed)", seed))

    async def end(self, *, healthy: bool) -> None:
        """Give the page back; may be called twice."""
        slot, self._slot = self._slot, None
        if slot is not None:
            await self._pool.release(slot, healthy=healthy)

    async def look(self) -> Look:
        """What is on the page now."""
        await self._page.evaluate("() => __episode.layout()")
        while self._taken.loading:
            # A picture that is under way changes sizes when it comes, and references with them.
            await asyncio.sleep(_POLL_SECONDS)
            if not self._taken.loading:
                await self._settle()
                await self._page.evaluate("() => __episode.layout()")
        said = await self._page.evaluate("() => __episode.look()")
        ending = said["ending"]
        return Look(said["nodes"], ending and Ending(**ending), float(said["elapsed"]))

    async def picture(self) -> bytes:
        """The task area as PNG, once nothing on it changes any more."""
        clip = {"x": 0, "y": 0, "width": AREA_WIDTH, "height": AREA_HEIGHT, "scale": 1}
        wanted = {"format": "png", "clip": clip, "optimizeForSpeed": True}
        await self._settle()
        while self._taken.loading:
            await asyncio.sleep(_POLL_SECONDS)
        before = ""
        for _ in range(_SHOTS):
            # What has arrived is painted later: two shots must agree.
            data = str((await self._taken.session.send("Page.captureScreenshot", wanted))["data"])
            if data == before:
                break
            before = data
        return base64.b64decode(before)

    async def act(self, action: Action, *, turn_ms: int) -> None:
        """Do `action`, then let the page's time go on so that the turn took `turn_ms`.

        Raises:
            RefusedError: the page does not allow it; nothing was done, and no time went by.
        """
        spent = 0
        match action:
            case Click():
                spent = await self._click(action.place, action.count)
            case Hover():
                spent = await self._point(action.place)
            case Drag():
                spent = await self._drag(action)
            case Type():
                spent = await self._type(action)
            case Press():
                await self._press(action.keys)
            case Select():
                await self._select(action)
            case Scroll():
                spent = await self._scroll(action)
            case _:
                turn_ms = action.milliseconds or turn_ms
        await self._advance(max(0, turn_ms - spent))

    @property
    def _taken(self) -> Slot:
        if self._slot is None:
            raise EnvError("the episode's page was given back")
        return self._slot

    @property
    def _page(self) -> Any:
        return self._taken.page

    async def _advance(self, milliseconds: int) -> bool:
        """Let the page's time go on; whether its episode is over."""
        return bool(await self._page.evaluate("ms => __episode.advance(ms)", milliseconds))

    async def _place(self, place: Place, *, drop: bool = False) -> Mapping[str, Any]:
        """Where to act; where something is to be dropped, what covers the place does not matter."""
        if isinstance(place, Point):
            if not (0 <= place.x < WIDTH and 0 <= place.y < HEIGHT):
                raise RefusedError(
                    f"({place.x:g}, {place.y:g}) is outside of the window of {WIDTH} x {HEIGHT}."
                )
            return {"x": place.x, "y": place.y, "tag": ""}
        found: Mapping[str, Any] = await self._page.evaluate(
            "([ref, drop]) => __episode.point(ref, drop)", [place.number, drop]
        )
        problem = found.get("problem")
        if problem is not None:
            raise RefusedError(
                {
                    "unknown": f"there is no element [{place.number}].",
                    "gone": f"the element [{place.number}] is no longer on the page.",
                    "hidden": f"the element [{place.number}] is hidden.",
                    "outside": f"the element [{place.number}] is outside of the window.",
                    "covered": f"the element [{place.number}] is covered by {found.get('by')}.",
                }[problem]
            )
        return found

    async def _point(self, place: Place) -> int:
        spot = await self._place(place)
        await self._page.mouse.move(spot["x"], spot["y"])
        await self._advance(_HOVER_MS)
        return _HOVER_MS

    async def _click(self, place: Place, count: int) -> int:
        spent = await self._point(place)
        for number in range(1, count + 1):
            await self._page.mouse.down(click_count=number)
            await self._page.mouse.up(click_count=number)
        return spent

    async def _drag(self, action: Drag) -> int:
        start = await self._place(action.start)
        end = await self._place(action.end, drop=True)
        mouse = self._page.mouse
        await mouse.move(start["x"], start["y"])
        await self._advance(_HOVER_MS)
        await mouse.down()
        await mouse.move(end["x"], end["y"], steps=_DRAG_MOVES)
        await self._settle()
        await self._advance(_HOVER_MS)
        await mouse.up()
        return 2 * _HOVER_MS

    async def _type(self, action: Type) -> int:
        spent = 0
        if action.ref is not None:
            spot = await self._place(action.ref)
            spent = await self._click(action.ref, 1)
            if spot["tag"] == "textarea" or spot.get("type") in _TEXT_FIELDS:
                await self._page.keyboard.press("Control+End")
            elif spot.get("type") in _PARTED_FIELDS:
                for _ in range(_MOST_PARTS):
                    await self._page.keyboard.press("ArrowLeft")
        await self._page.keyboard.type(action.text)
        return spent

    async def _press(self, keys: tuple[str, ...]) -> None:
        keyboard, pressed = self._page.keyboard, "+".join(keys)
        if pressed in ("Control+c", "Control+x"):
            # Episodes share a browser, and with it a clipboard: each has one of its own instead.
            self._clipboard = await self._page.evaluate("() => __episode.selection()")
            if pressed == "Control+x":
                await keyboard.press("Delete")
        elif pressed == "Control+v":
            await keyboard.insert_text(self._clipboard)
        else:
            await keyboard.press(pressed)

    async def _select(self, action: Select) -> None:
        ref = action.ref.number
        known = await self._page.evaluate("ref => __episode.options(ref)", ref)
        if known is None:
            raise RefusedError(f"the element [{ref}] is no list of options.")
        if len(action.options) > 1 and not known["many"]:
            raise RefusedError(f"the list [{ref}] takes one option.")
        missing = [one for one in action.options if one not in known["options"]]
        if missing:
            raise RefusedError(f"the list [{ref}] has no option {missing[0]!r}.")
        indices = [known["options"].index(one) for one in action.options]
        handle = await self._page.evaluate_handle("ref => __episode.element(ref)", ref)
        await handle.as_element().select_option(index=indices, force=True)

    async def _scroll(self, action: Scroll) -> int:
        spent = await self._point(action.place)
        await self._page.mouse.wheel(0, action.pixels)
        await self._settle()
        return spent

    async def _settle(self) -> None:
        """Wait for two real frames: scrolling and dragging reach the page with them."""
        await self._page.evaluate("() => __episode.frames()")
