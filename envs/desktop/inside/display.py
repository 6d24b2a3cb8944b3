"""The X display as the helper uses it: input events, windows, pixels and whether all is quiet."""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import Xlib.display
import Xlib.error
import Xlib.ext.xtest as xtest
import Xlib.protocol.event
import Xlib.X
import Xlib.XK

# Names of pyautogui and of OSWorld -> keysyms, beside those that X knows by their own name.
KEYSYMS = {
    "enter": "Return", "return": "Return", "esc": "Escape", "escape": "Escape", "tab": "Tab",
    "backspace": "BackSpace", "delete": "Delete", "del": "Delete", "insert": "Insert",
    "home": "Home", "end": "End", "pageup": "Prior", "pgup": "Prior", "pagedown": "Next",
    "pgdn": "Next", "up": "Up", "down": "Down", "left": "Left", "right": "Right",
    "space": "space", "ctrl": "Control_L", "ctrlleft": "Control_L", "ctrlright": "Control_R",
    "shift": "Shift_L", "shiftleft": "Shift_L", "shiftright": "Shift_R", "alt": "Alt_L",
    "altleft": "Alt_L", "altright": "Alt_R", "win": "Super_L", "winleft": "Super_L",
    "winright": "Super_R", "super": "Super_L", "command": "Super_L", "option": "Alt_L",
    "capslock": "Caps_Lock", "numlock": "Num_Lock", "scrolllock": "Scroll_Lock",
    "printscreen": "Print", "prtsc": "Print", "pause": "Pause", "menu": "Menu", "apps": "Menu",
    "add": "KP_Add", "subtract": "KP_Subtract", "multiply": "KP_Multiply",
    "divide": "KP_Divide", "decimal": "KP_Decimal",
    **{f"f{n}": f"F{n}" for n in range(1, 25)}, **{f"num{n}": f"KP_{n}" for n in range(10)},
}  # fmt: skip
PAUSE, PAUSE_LIMIT = 0.03, 1.0
CONTROL = {"\n": "Return", "\r": "Return", "\t": "Tab", "\b": "BackSpace", "\x1b": "Escape"}


class Display:
    """A connection to the X server and its mapped frame buffer."""

    def __init__(self, name: str, buffer_path: str) -> None:
        self.x = Xlib.display.Display(name)
        self.root = self.x.screen().root
        self.width = self.x.screen().width_in_pixels
        self.height = self.x.screen().height_in_pixels
        file = os.open(buffer_path, os.O_RDONLY)
        self._map = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        os.close(file)
        head = struct.unpack(">25I", self._map[:100])
        self._start = head[0] + head[19] * 12
        self._line = head[12]
        self._spare = [c for c in range(8, 256) if not any(self.x.get_keyboard_mapping(c, 1)[0])]
        self._lent: dict[int, int] = {}

    def pixels(self) -> bytes:
        """Rows of 4 bytes a pixel (blue, green, red, unused)."""
        return self._map[self._start : self._start + self._line * self.height]

    def checksum(self) -> int:
        """A number that changes with the picture."""
        return zlib.adler32(memoryview(self._map)[self._start :])

    def png(self) -> bytes:
        """The picture as PNG."""
        pixels = self.pixels()
        rgb = bytearray(self.width * self.height * 3)
        for channel in range(3):
            rgb[channel::3] = pixels[2 - channel :: 4]
        line = self.width * 3
        rows = b"".join(b"\0" + rgb[at : at + line] for at in range(0, len(rgb), line))
        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )

    def play(self, events: Iterable[Sequence[Any]]) -> None:
        """Give the server input events: `["move", x, y]`, `["button", n, down]`, ..."""
        for kind, *arguments in events:
            getattr(self, f"_{kind}")(*arguments)
        self.x.sync()

    def _move(self, x: int, y: int) -> None:
        xtest.fake_input(self.x, Xlib.X.MotionNotify, x=x, y=y)
        self.x.sync()

    def _glide(self, x: int, y: int, step: int, steps: int) -> None:
        """Go a part of the way to a point: the rest of it over the steps that are left."""
        at = self.root.query_pointer()
        left = steps - step + 1
        self._move(at.root_x + (x - at.root_x) // left, at.root_y + (y - at.root_y) // left)
        time.sleep(0.01)

    def _button(self, number: int, down: bool) -> None:
        kind = Xlib.X.ButtonPress if down else Xlib.X.ButtonRelease
        xtest.fake_input(self.x, kind, number)
        self.x.sync()

    def _key(self, name: str, down: bool) -> None:
        symbol = Xlib.XK.string_to_keysym(KEYSYMS.get(name.lower(), name))
        self._press(symbol or self._symbol(name), down)

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def _pause(self) -> None:
        settle(self, PAUSE, PAUSE_LIMIT)

    def _type(self, text: str) -> None:
        self._lend([self._symbol(c) for c in text])
        for character in text:
            if character in CONTROL:
                # What an entry completes or checks as it is typed comes before its Enter.
                settle(self, PAUSE, PAUSE_LIMIT)
            symbol = self._symbol(character)
            code, shifted = self._code(symbol)
            shift = self._code(Xlib.XK.XK_Shift_L)[0]
            if shifted:
                xtest.fake_input(self.x, Xlib.X.KeyPress, shift)
            xtest.fake_input(self.x, Xlib.X.KeyPress, code)
            xtest.fake_input(self.x, Xlib.X.KeyRelease, code)
            if shifted:
                xtest.fake_input(self.x, Xlib.X.KeyRelease, shift)
            self.x.sync()

    def _symbol(self, character: str) -> int:
        if character in CONTROL:
            return int(Xlib.XK.string_to_keysym(CONTROL[character]))
        return ord(character) if ord(character) < 0x100 else 0x01000000 + ord(character)

    def _code(self, symbol: int) -> tuple[int, bool]:
        """(key code, whether shift is held) of a symbol; a spare key is lent to an unknown one."""
        if symbol in self._lent:
            return self._lent[symbol], False
        codes = sorted((index, code) for code, index in self.x.keysym_to_keycodes(symbol))
        if codes and codes[0][0] < 2:
            return codes[0][1], codes[0][0] == 1
        self._lend([symbol])
        return self._lent[symbol], False

    def _lend(self, symbols: Iterable[int]) -> None:
        fresh = {
            symbol
            for symbol in symbols
            if symbol not in self._lent
            and not any(index < 2 for _, index in self.x.keysym_to_keycodes(symbol))
        }
        for symbol in sorted(fresh):
            if len(self._lent) == len(self._spare):
                self._lent.clear()
            code = self._spare[len(self._lent)]
            self.x.change_keyboard_mapping(code, [(symbol, symbol)])
            self._lent[symbol] = code
        if fresh:
            self.x.sync()
            # Applications read the new mapping when they are told of it, beside the key events.
            time.sleep(0.15)

    def _press(self, symbol: int, down: bool) -> None:
        code, _ = self._code(symbol)
        kind = Xlib.X.KeyPress if down else Xlib.X.KeyRelease
        xtest.fake_input(self.x, kind, code)
        self.x.sync()

    def knows(self, name: str) -> bool:
        """Whether a key has this name."""
        return len(name) == 1 or bool(Xlib.XK.string_to_keysym(KEYSYMS.get(name.lower(), name)))

    def windows(self) -> list[dict[str, Any]]:
        """The managed windows, oldest first: title, class, position, size, whether active."""
        active = self._property(self.root, "_NET_ACTIVE_WINDOW") or [0]
        found = []
        for number in self._property(self.root, "_NET_CLIENT_LIST") or []:
            window = self.x.create_resource_object("window", number)
            try:
                size = window.get_geometry()
                at = window.translate_coords(self.root, 0, 0)
                title = self._text(window, "_NET_WM_NAME") or window.get_wm_name() or ""
                classes = window.get_wm_class() or ("", "")
            except (Xlib.error.BadWindow, Xlib.error.BadDrawable):
                continue
            title = title.decode("utf-8", "replace") if isinstance(title, bytes) else title
            found.append(
                {
                    "id": number, "title": title, "class": classes[1], "x": -at.x, "y": -at.y,
                    "width": size.width, "height": size.height, "active": number == active[0],
                }
            )  # fmt: skip
        return found

    def managed(self) -> bool:
        """Whether a window manager is there."""
        return self._property(self.root, "_NET_SUPPORTING_WM_CHECK") is not None

    def activate(self, number: int) -> None:
        """Ask the window manager to raise and focus a window."""
        self._ask(number, "_NET_ACTIVE_WINDOW", [2, Xlib.X.CurrentTime, 0, 0, 0])

    def close(self, number: int) -> None:
        """Ask the window manager to close a window."""
        self._ask(number, "_NET_CLOSE_WINDOW", [Xlib.X.CurrentTime, 2, 0, 0, 0])

    def _ask(self, number: int, message: str, data: list[int]) -> None:
        window = self.x.create_resource_object("window", number)
        event = Xlib.protocol.event.ClientMessage(
            window=window, client_type=self.x.intern_atom(message), data=(32, data)
        )
        mask = Xlib.X.SubstructureRedirectMask | Xlib.X.SubstructureNotifyMask
        self.root.send_event(event, event_mask=mask)
        self.x.sync()

    def _property(self, window: Any, name: str) -> list[int] | None:
        found = window.get_full_property(self.x.intern_atom(name), Xlib.X.AnyPropertyType)
        return list(found.value) if found else None

    def _text(self, window: Any, name: str) -> bytes:
        found = window.get_full_property(self.x.intern_atom(name), Xlib.X.AnyPropertyType)
        return bytes(found.value) if found else b""


def working() -> bool:
    """Whether a thread of the desktop runs or waits for a processor; the caller's do not count."""
    own = str(os.getpid())
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or pid == own:
            continue
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                    stat = file.read()
                if stat[stat.rindex(b")") + 2] in b"RD":
                    return True
        except OSError:
            continue
    return False


def settle(display: Display, quiet: float, limit: float) -> bool:
    """Wait until nothing ran and no pixel changed for `quiet` seconds, at most `limit` seconds."""
    end = time.monotonic() + limit
    picture, since = display.checksum(), time.monotonic()
    while (now := time.monotonic()) < end:
        if now - since >= quiet:
            return True
        time.sleep(0.02)
        seen = display.checksum()
        if seen != picture or working():
            picture, since = seen, time.monotonic()
    return False
