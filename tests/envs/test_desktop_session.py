"""A desktop as a sandbox: what its programs cannot reach, and what is left when something dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from desktop_processes import descendants, gone, needs_desktop

from agentrl.core.errors import EnvError
from agentrl.envs.desktop.confinement import DesktopSettings
from agentrl.envs.desktop.pool import DesktopPool, PoolSettings
from agentrl.envs.desktop.session import Desktop

pytestmark = [pytest.mark.slow, pytest.mark.desktop, pytest.mark.bubblewrap, needs_desktop]
SMALL = DesktopSettings(width=640, height=480, memory_mb=256, processes=128, disk_mb=32)


@pytest.fixture
async def desktop():
    found = await Desktop.start(SMALL)
    yield found
    await found.close()


async def test_its_programs_see_nothing_of_the_host(desktop, monkeypatch, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("hidden")
    for path in ("/etc/shadow", "/etc/ssh", "/root", "/work", "/sys", "/boot", str(secret)):
        ran = await desktop.run(["ls", path])
        assert ran.code != 0, path
    seen = await desktop.run("env; cat /proc/1/environ; ls /proc | grep -c '^[0-9]'")
    assert str(os.getpid()) not in seen.stdout and "PYTEST" not in seen.stdout
    assert (await desktop.run("touch /usr/bin/owned")).code != 0
    assert (await desktop.run("grep -h Cap /proc/self/status")).stdout.split()[1::2] == [
        "0" * 16
    ] * 5


async def test_its_programs_have_no_network(desktop):
    ran = await desktop.run("tail -n +3 /proc/net/dev | cut -d: -f1; tail -n +2 /proc/net/route")
    assert ran.stdout.split() == ["lo"]
    code = "import socket; socket.create_connection(('1.1.1.1', 53), 2)"
    assert "unreachable" in (await desktop.run(["python3", "-c", code])).stderr


async def test_its_programs_cannot_end_the_desktop(desktop):
    names = (await desktop.run("ps -e -o comm=")).stdout.split()
    assert "Xvfb" not in names and "openbox" not in names and "dbus-daemon" not in names
    await desktop.run("pkill -9 Xvfb; kill -9 1; kill -STOP 1; kill -9 -1")
    await desktop.run("rm -rf /run/agentrl/* /tmp/.X11-unix/*; echo x > /run/desktop/helper.py")
    await desktop.launch(["xterm"])
    await asyncio.sleep(0.5)
    assert [one["class"] for one in await desktop.windows()] == ["XTerm"]


async def test_a_memory_bomb_ends_and_the_desktop_does_not(desktop):
    code = "x = bytearray(100 << 20)\nwhile True: x += bytearray(20 << 20)"
    ran = await desktop.run(["python3", "-c", code], timeout=20.0)
    assert ran.code == -signal.SIGKILL
    said = await desktop.request("ping")
    assert said["ended"] >= 1 and said["memory"] < 200 << 20


async def test_a_fork_bomb_and_a_full_disk_stay_inside(desktop):
    await desktop.launch("bomb() { bomb | bomb & }; bomb")
    await asyncio.sleep(1.0)
    assert len(descendants(desktop.pid)) < 128 + 32
    await desktop.request("ping", seconds=10.0)
    await desktop.run("kill -9 -1")
    ran = await desktop.run("head -c 100M /dev/zero > ~/full", timeout=20.0)
    assert "No space left" in ran.stderr or "Cannot fork" in ran.stderr


async def test_a_command_that_hangs_costs_its_deadline_and_nothing_else(desktop):
    ran = await desktop.run("sleep 100", timeout=0.3)
    assert ran.code is None
    assert (await desktop.run("setsid sleep 100 & sleep 100", timeout=0.3)).code is None
    assert (await desktop.run("echo on")).stdout == "on\n"


async def test_files_are_read_and_written_but_no_pipe_or_folder(desktop):
    await desktop.write("~/a/b.txt", b"\x00\xffx")
    assert await desktop.read("/home/user/a/b.txt") == b"\x00\xffx"
    await desktop.run("mkfifo pipe; : > empty; ln -s /proc/1/mem link")
    assert await desktop.read("empty") == b""
    for path in ("pipe", "a", "missing", "link"):
        assert await desktop.read(path) is None, path


async def test_closing_ends_every_process_also_what_left_its_group(desktop):
    await desktop.launch(["xterm", "-e", "sh", "-c", "setsid nohup sleep 1000"])
    await asyncio.sleep(0.5)
    below = descendants(desktop.pid)
    assert {"Xvfb", "openbox", "dbus-daemon", "xterm", "sleep"} <= set(below.values())
    await desktop.close()
    assert await gone(set(below))
    with pytest.raises(EnvError, match="it was closed"):
        await desktop.windows()


async def test_a_killed_worker_leaves_nothing():
    code = """
import asyncio, sys, time
from agentrl.envs.desktop.session import Desktop
from agentrl.envs.desktop.confinement import DesktopSettings
async def main():
    desktop = await Desktop.start(DesktopSettings())
    await desktop.launch(["mousepad"])
    print(desktop.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pid = int(await asyncio.to_thread(worker.stdout.readline))
    below = {pid, *descendants(pid)}
    assert len(below) > 5
    worker.kill()
    worker.wait()
    assert await gone(below)


async def test_one_dead_display_is_told_and_the_others_go_on(desktop):
    other = await Desktop.start(SMALL)
    try:
        (display,) = [pid for pid, name in descendants(other.pid).items() if name == "Xvfb"]
        os.kill(display, signal.SIGKILL)
        with pytest.raises(EnvError, match="the desktop is gone"):
            for _ in range(50):
                await other.windows()
                await asyncio.sleep(0.02)
        assert not other.alive
        assert (await desktop.run("echo on")).stdout == "on\n"
        assert await desktop.windows() == []
    finally:
        await other.close()


async def test_a_cancelled_request_never_answers_the_next_one(desktop):
    slow = asyncio.create_task(desktop.run("sleep 5"))
    await asyncio.sleep(0.1)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    with pytest.raises(EnvError, match="cancelled"):
        await desktop.windows()


async def test_typed_text_arrives_whatever_its_letters(desktop):
    await desktop.launch(["mousepad", "/home/user/t.txt"])
    while not await desktop.windows():
        await asyncio.sleep(0.05)
    await desktop.request("settle", quiet=0.2, limit=10.0)
    text = "a<b>\"'\\ {x} ~`|€ñ日本\n\tEnd"
    await desktop.request("play", events=[["type", text]])
    for name, down in (("ctrl", True), ("s", True), ("s", False), ("ctrl", False)):
        await desktop.request("play", events=[["key", name, down]])
    await desktop.request("settle", quiet=0.2, limit=10.0)
    assert (await desktop.read("t.txt") or b"").decode().rstrip("\n") == text


async def test_a_pool_has_so_many_and_prepares_some():
    pool = DesktopPool(PoolSettings(SMALL, desktops=2, prepared=1, wait_seconds=0.5))
    try:
        one = await pool.acquire()
        while not pool._ready:
            await asyncio.sleep(0.02)
        ready = pool._ready[0]
        (display,) = [pid for pid, name in descendants(ready.pid).items() if name == "Xvfb"]
        os.kill(display, signal.SIGKILL)
        await asyncio.sleep(0.2)
        # What died while it waited is replaced, not given out.
        two = await pool.acquire()
        assert two is not ready and two.alive
        with pytest.raises(EnvError, match="raise `desktops`"):
            await pool.acquire()
        await pool.release(one)
        await pool.release(one)
        three = await pool.acquire()
        assert (await three.run("echo on")).stdout == "on\n"
        for each in (two, three):
            await pool.release(each)
    finally:
        await pool.close()
    assert not pool._ready
