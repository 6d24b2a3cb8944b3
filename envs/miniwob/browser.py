"""A pool of browser pages: one Chromium for a process, in a thread of its own, replaced when worn.

Playwright belongs to the event loop that started it; an environment may be used from any. So the
browser, its pages and all that is done to them live in one thread with one event loop, and every
call from elsewhere is a coroutine that runs there under a deadline (`BrowserPool.run`).
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import importlib
import logging
import os
import shutil
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, TypeVar

from agentrl.core.errors import EnvError, SetupError

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, CDPSession, Page, Playwright, Request

T = TypeVar("T")

log = logging.getLogger(__name__)

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Names under which a system may have Chromium, in the order in which they are tried."""

WIDTH, HEIGHT = 332, 214
"""Size of a page's window, in pixels."""

_FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-crash-reporter",
    "--disable-partial-raster",
    "--disable-lcd-text",
    "--num-raster-threads=1",
    "--disable-checker-imaging",
    "--disable-smooth-scrolling",
    "--disable-sync",
    "--force-color-profile=srgb",
    # No name is resolved and whatever gets past that goes to a proxy that is not there.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://127.0.0.1:9",
    "--proxy-bypass-list=<-loopback>",
)
_EPISODES_PER_PAGE = 100
_RELEASES_PER_MEASUREMENT = 16
_START_SECONDS = 60.0
_IDLE_SECONDS = 120.0
_CLOSE_SECONDS = 10.0
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserSettings:
    """What a pool is made of; equal settings share one pool.

    `executable` is the path of Chromium, by default the first of `PROGRAMS` on the PATH. At most
    `max_pages` episodes are open at once. A browser is replaced after `episodes` episodes or when
    its processes hold over `memory_mb` MiB of their own, as soon as none of its pages is in use.
    One that nothing has used for two minutes ends.
    """

    executable: str | None = None
    max_pages: int = 32
    episodes: int = 2000
    memory_mb: int = 4096


@dataclass(slots=True, eq=False)
class Slot:
    """A page that plays one episode at a time."""

    home: LiveBrowser
    context: BrowserContext
    page: Page
    session: CDPSession
    address: str = ""
    episodes: int = 0
    loading: set[Request] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class LiveBrowser:
    """A running Chromium with the driver that controls it, and its pages that wait for work."""

    driver: Playwright
    browser: Browser
    session: CDPSession
    used: int = 0
    leased: int = 0
    worn: bool = False
    lost: bool = False
    idle: list[Slot] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether the browser answered when it was last asked."""
        return bool(self.browser.is_connected()) and not self.lost

    async def probe(self) -> None:
        """Ask the browser something; the library does not notice a driver that is gone."""
        try:
            await asyncio.wait_for(self.session.send("Browser.getVersion"), _PROBE_SECONDS)
        except Exception as error:
            log.debug("a browser is given up: %r", error)
            self.lost = True

    async def process_ids(self) -> dict[str, list[int]]:
        """Process ids by kind ("browser", "renderer", "GPU", ...)."""
        said = await self.session.send("SystemInfo.getProcessInfo")
        found: dict[str, list[int]] = {}
        for one in said["processInfo"]:
            found.setdefault(one["type"], []).append(int(one["id"]))
        return found

    async def memory_mb(self) -> float:
        """MiB that the browser's processes hold beyond what they share with files."""
        processes = await self.process_ids()
        return sum(_private_mb(pid) for pids in processes.values() for pid in pids)

    async def close(self) -> None:
        """End browser and driver; what fails or hangs is dead already."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.browser.close(), _CLOSE_SECONDS)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.driver.stop(), _CLOSE_SECONDS)


class BrowserPool:
    """Pages for the episodes of a process. Public methods may be called from any event loop.

    `lease`, `release` and all work on a `Slot` run in the pool's own thread, through `run`.
    """

    def __init__(self, settings: BrowserSettings) -> None:
        self.settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="agentrl-browser", daemon=True)
        self._thread.start()
        self._pages = asyncio.Semaphore(settings.max_pages)
        self._starting = asyncio.Lock()
        self._current: LiveBrowser | None = None
        self._releases = 0
        self._process = os.getpid()
        self._closing: set[asyncio.Task[None]] = set()
        atexit.register(self.close)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def run(self, work: Coroutine[object, object, T], *, seconds: float) -> T:
        """The result of `work`, run in the pool's thread; cancelled there when it is here.

        Raises:
            EnvError: `work` took longer than `seconds`, or the browser failed under it.
        """
        try:
            bounded = _bounded(work, seconds, _playwright().Error)
        except SetupError:
            work.close()
            raise
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(bounded, self._loop))

    def post(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run `work` in the pool's thread some time; for finalizers, which cannot wait."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self._spawn(work()))

    async def lease(self, *, seconds: float) -> Slot:
        """A page of a living browser; waits up to `seconds` while `max_pages` are in use.

        Raises:
            EnvError: none of them became free.
        """
        try:
            await asyncio.wait_for(self._pages.acquire(), seconds)
        except TimeoutError as error:
            raise EnvError(
                f"all {self.settings.max_pages} pages were in use for {seconds:g} s: raise "
                "max_pages, or let fewer episodes be open at once"
            ) from error
        try:
            live = await self._living()
            live.leased += 1
            live.used += 1
            try:
                slot = live.idle.pop() if live.idle else await self._opened(live)
            except BaseException:
                live.leased -= 1
                await live.probe()
                raise
        except BaseException:
            self._pages.release()
            raise
        slot.episodes += 1
        return slot

    async def release(self, slot: Slot, *, healthy: bool) -> None:
        """Give `slot` back; one that is not healthy is never used again."""
        live = slot.home
        live.leased -= 1
        self._pages.release()
        if not healthy:
            await live.probe()
        if healthy and live.alive and not live.worn and slot.episodes < _EPISODES_PER_PAGE:
            live.idle.append(slot)
        else:
            self._spawn(_closed(slot))
        self._releases += 1
        if live.used >= self.settings.episodes:
            live.worn = True
        elif live.alive and self._releases % _RELEASES_PER_MEASUREMENT == 0:
            live.worn = live.worn or await self._is_large(live)
        if live.leased == 0 and (live.worn or not live.alive):
            self._retire(live)
        elif live.leased == 0:
            self._loop.call_later(_IDLE_SECONDS, self._retire_idle, live, live.used)

    async def browser(self) -> LiveBrowser:
        """The browser that the next episode would run in, started if there is none."""
        return await self._living()

    async def _living(self) -> LiveBrowser:
        async with self._starting:
            live = self._current
            if live is None or not live.alive or live.worn:
                if live is not None and live.leased == 0:
                    self._retire(live)
                self._current = live = await _launched(self.settings)
            return live

    async def _is_large(self, live: LiveBrowser) -> bool:
        try:
            return await live.memory_mb() > self.settings.memory_mb
        except Exception as error:
            log.debug("a browser that cannot be measured is replaced: %r", error)
            return True

    def _retire(self, live: LiveBrowser) -> None:
        if self._current is live:
            self._current = None
        live.idle.clear()
        self._spawn(live.close())

    def _retire_idle(self, live: LiveBrowser, used: int) -> None:
        if self._current is live and live.leased == 0 and live.used == used:
            self._retire(live)

    async def _opened(self, live: LiveBrowser) -> Slot:
        """A new page in a context of its own, in which `page.js` runs before all else."""
        context = await live.browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=1,
            locale="en-US",
            timezone_id="UTC",
            accept_downloads=False,
            service_workers="block",
        )
        try:
            return await self._slot(live, context)
        except BaseException:
            self._spawn(context.close())
            raise

    async def _slot(self, live: LiveBrowser, context: BrowserContext) -> Slot:
        await context.add_init_script(_page_script())
        page = await context.new_page()
        session = await context.new_cdp_session(page)
        slot = Slot(live, context, page, session)
        context.on("page", lambda popup: self._spawn(popup.close()))
        # Only the page of the episode and upstream's pictures are loaded: an address leads nowhere.
        # What a page's style asks for comes late, and is waited for before a picture is taken.
        page.on("request", lambda request: slot.loading.add(request))
        page.on("requestfinished", lambda request: slot.loading.discard(request))
        page.on("requestfailed", lambda request: slot.loading.discard(request))
        session.on("Fetch.requestPaused", lambda event: self._spawn(_guard(slot, event)))
        kinds = ("Document", "Image", "Media")
        patterns = [{"urlPattern": "*", "resourceType": kind} for kind in kinds]
        await session.send("Fetch.enable", {"patterns": patterns})
        return slot

    def _spawn(self, work: Awaitable[object]) -> None:
        task = self._loop.create_task(_logged(work))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def close(self) -> None:
        """End the browser and the thread; may be called twice."""
        atexit.unregister(self.close)
        # A forked child has the pool's memory, but neither its thread nor its browser.
        if self._loop.is_closed() or self._process != os.getpid():
            return
        ending = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        with contextlib.suppress(TimeoutError):
            ending.result(2 * _CLOSE_SECONDS + 1)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _close(self) -> None:
        live, self._current = self._current, None
        if live is not None:
            await live.close()
        if self._closing:
            await asyncio.wait(tuple(self._closing), timeout=_CLOSE_SECONDS)


@functools.cache
def _pool(settings: BrowserSettings, process: int) -> BrowserPool:
    return BrowserPool(settings)


def shared_pool(settings: BrowserSettings) -> BrowserPool:
    """The pool of these settings in this process; a forked child starts its own."""
    return _pool(settings, os.getpid())


@functools.cache
def _page_script() -> str:
    return Path(__file__).with_name("page.js").read_text("utf-8")


def _playwright() -> ModuleType:
    """Playwright's module; imported when a page is first asked for."""
    try:
        return importlib.import_module("playwright.async_api")
    except ImportError as error:
        raise SetupError(
            'the package playwright is not installed: pip install "agentrl[miniwob]"'
        ) from error


def _program(settings: BrowserSettings) -> str:
    wanted = PROGRAMS if settings.executable is None else (settings.executable,)
    found = next((path for one in wanted if (path := shutil.which(one))), None)
    if found is None:
        where = "on the PATH" if settings.executable is None else "there"
        raise SetupError(
            f"Chromium is not {where} (looked for {', '.join(wanted)}): "
            "apt-get install chromium, or give the setting `executable`"
        )
    return found


async def _launched(settings: BrowserSettings) -> LiveBrowser:
    program = _program(settings)
    driver = await _playwright().async_playwright().start()
    try:
        browser = await driver.chromium.launch(
            executable_path=program,
            headless=True,
            # Chromium's own sandbox does not work for root; the pages are upstream's, not a web.
            args=[*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])],
            timeout=1000 * _START_SECONDS,
            # The program that uses the library decides what a signal does.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        session = await browser.new_browser_cdp_session()
    except BaseException:
        await driver.stop()
        raise
    return LiveBrowser(driver, browser, session)


async def _guard(slot: Slot, event: dict[str, object]) -> None:
    """Answer a request: the episode's own page, pictures from the folder around it, no more."""
    request = event["request"]
    assert isinstance(request, dict)
    number, url = {"requestId": event["requestId"]}, str(request["url"])
    folder = slot.address.rsplit("/", 2)[0] + "/"
    pictured = event["resourceType"] == "Image" and url.startswith(folder) and "/.." not in url
    if pictured or url == slot.address:
        await slot.session.send("Fetch.continueRequest", number)
    else:
        await slot.session.send("Fetch.failRequest", number | {"errorReason": "Aborted"})


async def _closed(slot: Slot) -> None:
    await asyncio.wait_for(slot.context.close(), _CLOSE_SECONDS)


async def _logged(work: Awaitable[object]) -> None:
    try:
        await work
    except Exception as error:
        # A page or browser that is gone cannot be closed; nothing waits for the outcome.
        log.debug("in the browser's background: %r", error)


async def _bounded(
    work: Coroutine[object, object, T], seconds: float, failure: type[Exception]
) -> T:
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError as error:
        raise EnvError(f"the browser did not answer within {seconds:g} s") from error
    except failure as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise EnvError(f"the browser failed: {first}") from error
    except Exception as error:
        # The library says with a bare one that its driver is gone.
        if type(error) is not Exception:
            raise
        raise EnvError(f"the browser's driver failed: {error}") from error


def _private_mb(pid: int) -> float:
    """Resident memory of `pid` that no file backs, in MiB; 0 where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") / 2**20
