"""What a bubblewrap sandbox leaves behind: nothing, however it or its worker ends."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from process_tree import descendants

from agentrl.core.errors import EnvError, SetupError
from agentrl.sandbox import BubblewrapSettings, Limits, RunStatus, shared
from agentrl.sandbox.bubblewrap import BubblewrapSandbox

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap"),
]
LIMITS = Limits(wall_seconds=10.0, cpu_seconds=5.0, memory_mb=128, processes=8, disk_mb=8)
SETTINGS = BubblewrapSettings(limits=LIMITS, preload=())


@pytest.fixture
async def sandbox() -> AsyncIterator[BubblewrapSandbox]:
    made = BubblewrapSandbox(SETTINGS)
    yield made
    await made.close()


def wait_until(done, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.02)
    return False


async def test_nothing_is_left_when_it_is_closed(sandbox):
    before = descendants(os.getpid())
    opened = set(os.listdir("/proc/self/fd"))
    session = await sandbox.open()
    fork = await session.fork()
    await fork.run(["sh", "-c", "sleep 1000 & echo"])
    await sandbox.run_python("import os\nif os.fork() == 0:\n    import time; time.sleep(1000)")
    assert len(descendants(os.getpid()) - before) >= 5
    for one in (session, fork):
        await one.close()
    await sandbox.close()
    await sandbox.close()
    assert wait_until(lambda: not descendants(os.getpid()) - before)
    assert set(os.listdir("/proc/self/fd")) <= opened


WORKER = """
import asyncio, sys
from agentrl.sandbox import BubblewrapSettings
from agentrl.sandbox.bubblewrap import BubblewrapSandbox
async def main():
    sandbox = BubblewrapSandbox(BubblewrapSettings(preload=()))
    session = await sandbox.open()
    fork = await session.fork()
    await session.run(["sh", "-c", "setsid sleep 1000 & echo"])
    print("ready", flush=True)
    await asyncio.gather(fork.execute("while True: pass"), sandbox.run_python("while True: pass"))
asyncio.run(main())
"""


@pytest.mark.slow
async def test_nothing_is_left_of_a_worker_that_is_killed():
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    started = descendants(worker.pid)
    assert len(started) >= 6
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    mounts = Path("/proc/self/mountinfo").read_text()
    assert "/run/sandbox" not in mounts and " - tmpfs home " not in mounts


async def test_a_container_that_dies_is_replaced_and_its_sessions_say_so(sandbox):
    before = descendants(os.getpid())
    session = await sandbox.open()
    waiting = asyncio.create_task(session.execute("import time; time.sleep(60)"))
    program = asyncio.create_task(sandbox.run_python("import time; time.sleep(60)"))
    await asyncio.sleep(0.3)
    for pid in sorted(descendants(os.getpid()) - before)[:1]:
        os.kill(pid, signal.SIGKILL)
    for task in (waiting, program):
        with pytest.raises(EnvError):
            await task
    with pytest.raises(EnvError):
        await session.execute("1")
    await session.close()
    assert (await sandbox.run_python("print(3)")).stdout == "3\n"
    fresh = await sandbox.open()
    assert (await fresh.execute("4")).stdout == "4\n"


async def test_a_cancelled_run_is_ended_and_its_session_goes_on(sandbox):
    session = await sandbox.open({"f": b"kept"})
    await session.execute("x = 1")
    before = descendants(os.getpid())
    program = asyncio.create_task(sandbox.run_python("import time; time.sleep(60)"))
    run = asyncio.create_task(session.execute("import time; time.sleep(60)"))
    await asyncio.sleep(0.3)
    for task in (program, run):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    result = await session.execute("'x' in globals(), open('f').read()")
    assert (result.stdout, result.restarted) == ("(False, 'kept')\n", True)
    assert not (await session.execute("1")).restarted
    assert wait_until(lambda: len(descendants(os.getpid()) - before) <= 1)
    assert (await sandbox.run_python("print(5)")).stdout == "5\n"


async def test_a_call_that_is_cancelled_at_any_moment_leaves_the_sandbox_sound(sandbox):
    session = await sandbox.open()
    for pause in range(12):
        calls = [
            asyncio.create_task(sandbox.run_python("print(1)")),
            asyncio.create_task(session.execute("print(1)")),
            asyncio.create_task(session.run(["true"])),
            asyncio.create_task(session.fork()),
        ]
        await asyncio.sleep(pause * 0.0015)
        for call in calls:
            call.cancel()
        for done in await asyncio.gather(*calls, return_exceptions=True):
            if hasattr(done, "close"):
                await done.close()
        assert (await session.execute("print('still')")).stdout == "still\n"
        assert (await sandbox.run_python("print('here')")).stdout == "here\n"


async def test_only_so_many_live_at_once_and_the_rest_wait():
    sandbox = BubblewrapSandbox(SETTINGS.model_copy(update={"sessions": 2}))
    first, second = await sandbox.open(), await sandbox.open()
    third = asyncio.create_task(sandbox.open())
    forked = asyncio.create_task(first.fork())
    program = asyncio.create_task(sandbox.run_python("print(1)"))
    await asyncio.sleep(0.2)
    assert not third.done() and not forked.done() and not program.done()
    await second.close()
    await second.close()
    await (await third).close()
    await (await forked).close()
    assert (await program).stdout == "1\n"
    await sandbox.close()


def test_every_event_loop_has_its_own_and_a_loop_that_ends_leaves_nothing():
    said: list[str] = []

    async def play() -> None:
        said.append((await shared(SETTINGS).run_python("print('loop')")).stdout)

    before = descendants(os.getpid())
    threads = [threading.Thread(target=lambda: asyncio.run(play())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(play())
    assert said == ["loop\n"] * 3
    assert wait_until(lambda: not descendants(os.getpid()) - before)


def test_one_object_serves_a_second_loop():
    sandbox = BubblewrapSandbox(SETTINGS)
    for _ in range(2):
        assert asyncio.run(sandbox.run_python("print(1)")).stdout == "1\n"
    asyncio.run(sandbox.close())


def test_a_fork_of_the_worker_starts_its_own_and_leaves_the_first_alone():
    loop = asyncio.new_event_loop()
    sandbox = BubblewrapSandbox(SETTINGS)
    assert loop.run_until_complete(sandbox.run_python("print(1)")).stdout == "1\n"

    def forked() -> None:
        assert asyncio.run(sandbox.run_python("print(2)")).stdout == "2\n"
        asyncio.run(sandbox.close())

    child = multiprocessing.get_context("fork").Process(target=forked)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert loop.run_until_complete(sandbox.run_python("print(3)")).stdout == "3\n"
    loop.run_until_complete(sandbox.close())
    loop.close()


async def test_a_machine_without_bubblewrap_is_told_the_command(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SetupError, match="apt-get install bubblewrap"):
        await BubblewrapSandbox(SETTINGS).run_python("1")


async def test_an_import_that_fails_is_named():
    settings = SETTINGS.model_copy(update={"preload": ("no_such_module",)})
    with pytest.raises(SetupError, match="no_such_module"):
        await BubblewrapSandbox(settings).open()


async def test_programs_share_nothing_but_the_system_and_all_look_alike(sandbox):
    code = "import os; print(os.getpid(), os.listdir(), id(object()), hash('a'))"
    first = await sandbox.run_python(code, files={"f": b""})
    second = await sandbox.run_python(code, files={"f": b""})
    assert first.status is RunStatus.OK and first.stdout == second.stdout
    other = BubblewrapSandbox(SETTINGS)
    assert (await other.run_python(code, files={"f": b""})).stdout == first.stdout
    await other.close()
    left = "open('/tmp/x', 'w'); open('/dev/shm/y', 'w'); open('z', 'w')"
    await sandbox.run_python(left)
    looked = await sandbox.run_python("import os; print(*map(os.listdir, ('/tmp','/dev/shm','.')))")
    assert looked.stdout == "[] [] []\n"


async def test_every_containers_first_session_has_its_objects_at_the_same_addresses():
    found = set()
    for _ in range(3):
        other = BubblewrapSandbox(SETTINGS)
        session = await other.open()
        code = "[*map(id, (object(), [], {}, 1.5, lambda: 0, bytes(300), bytes(3000)))]"
        found.add((await session.execute(code)).stdout)
        await other.close()
    assert len(found) == 1, found


async def test_standard_input_files_and_the_exit_code_of_a_program(sandbox):
    code = "import sys; print(sys.stdin.read().upper(), open('a/b').read()); sys.exit(3)"
    result = await sandbox.run_python(code, stdin="hällo", files={"a/b": b"file"})
    assert (result.status, result.exit_code, result.stdout) == (RunStatus.ERROR, 3, "HÄLLO file\n")
    program = await sandbox.run(["cat", "-", "f"], stdin="one ", files={"f": b"two"})
    assert (program.status, program.stdout, program.exit_code) == (RunStatus.OK, "one two", 0)
    quiet = await sandbox.run_python("import sys; sys.exit('sorry')")
    assert (quiet.stderr, quiet.exit_code) == ("sorry\n", 1)


async def test_files_that_cannot_stand_there_are_an_error_of_the_caller(sandbox):
    for name in ("../x", "/etc/x", "", "a//b"):
        with pytest.raises(EnvError, match="working folder"):
            await sandbox.run_python("1", files={name: b""})
        with pytest.raises(EnvError, match="working folder"):
            await sandbox.open({name: b""})
    assert (await sandbox.run_python("print(1)")).stdout == "1\n"


ORDINARY = """
import asyncio, os
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
from agentrl.sandbox import BubblewrapSettings
from agentrl.sandbox.bubblewrap import BubblewrapSandbox
async def main():
    sandbox = BubblewrapSandbox(BubblewrapSettings(preload=()))
    session = await sandbox.open()
    await session.execute("import os; x = 1")
    twin = await session.fork()
    print((await twin.execute("x, os.getuid(), os.listdir()")).stdout, end="")
    print((await sandbox.run_python("print(2)")).stdout, end="")
    await sandbox.close()
asyncio.run(main())
"""


@pytest.mark.slow
def test_it_works_for_an_ordinary_user():
    # Another user must be able to read this interpreter, wherever it is installed.
    argv = ["bwrap", "--dev-bind", "/", "/", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    places = dict.fromkeys((sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2])))
    private = [place for place in places if not os.stat(Path(place).parents[-2]).st_mode & 0o001]
    for top in dict.fromkeys(str(Path(place).parents[-2]) for place in private):
        argv += ["--perms", "0755", "--tmpfs", top]
    for place in private:
        for folder in reversed(Path(place).parents[:-2]):
            argv += ["--perms", "0755", "--dir", str(folder)]
        argv += ["--ro-bind", place, place]
    argv = argv if os.geteuid() == 0 else []
    done = subprocess.run(
        [*argv, sys.executable, "-c", ORDINARY], capture_output=True, text=True, cwd="/"
    )
    assert (done.stdout, done.returncode) == ("(1, 1000, [])\n2\n", 0), done.stderr


async def test_a_worker_without_descriptors_is_told_what_to_raise(sandbox):
    session = await sandbox.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    fill = []
    try:
        with pytest.raises(OSError):
            while True:
                fill.append(os.dup(0))
        for call in (sandbox.open, session.fork):
            with pytest.raises(EnvError, match="ulimit -n"):
                await call()
        with pytest.raises(EnvError, match="ulimit -n"):
            await sandbox.run_python("1")
        assert (await session.execute("1")).stdout == "1\n"
    finally:
        for descriptor in fill:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (await sandbox.run_python("print(1)")).stdout == "1\n"


async def test_a_program_may_talk_to_itself_over_its_own_loopback(sandbox):
    code = """
import socket
server = socket.socket()
server.bind(("127.0.0.1", 8080))
server.listen()
client = socket.create_connection(("127.0.0.1", 8080))
there = server.accept()[0]
there.sendall(b"hello")
there.close()
print(client.recv(5))
"""
    for _ in range(2):
        assert (await sandbox.run_python(code)).stdout == "b'hello'\n"


async def test_a_file_beside_a_program_can_be_imported(sandbox):
    files = {"helper.py": b"x = 41", "pack/__init__.py": b"", "pack/one.py": b"y = 1"}
    result = await sandbox.run_python(
        "import helper, pack.one\nprint(helper.x + pack.one.y)", files=files
    )
    assert result.stdout == "42\n"
    session = await sandbox.open(files)
    assert (await session.execute("import helper; helper.x")).stdout == "41\n"
    for n in range(5):
        await session.write(f"late{n}.py", f"z = {n}".encode())
        assert (await session.execute(f"import late{n}; late{n}.z")).stdout == f"{n}\n"
