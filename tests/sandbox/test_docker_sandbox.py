"""Programs in real containers: outcomes, what is left behind (nothing), sessions, lost daemons."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import pytest_asyncio
from docker_fakes import LIMITS, Proxy, containers_of, docker, here, need_docker, settings

from agentrl.core.errors import EnvError, SetupError
from agentrl.sandbox import Limits, RunStatus
from agentrl.sandbox.docker import DockerSandbox
from agentrl.sandbox.docker_daemon import LABEL, owner

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SHORT = Limits(**{**LIMITS.model_dump(), "wall_seconds": 1.0, "cpu_seconds": 5.0})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def sandbox():
    need_docker()
    made = DockerSandbox(settings(containers=4))
    yield made
    await made.close()
    assert here() == []


def idle(sandbox):
    return [one.id for one in sandbox._pool._idle]


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("print('fine')", RunStatus.OK, 0),
        ("import sys; sys.exit(3)", RunStatus.ERROR, 3),
        ("1 / 0", RunStatus.ERROR, 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", RunStatus.KILLED, None),
        ("import time; time.sleep(60)", RunStatus.WALL_LIMIT, None),
        ("x = bytearray(400 << 20)", RunStatus.MEMORY_LIMIT, None),
        ("x = bytearray(1 << 60)", RunStatus.MEMORY_LIMIT, None),
        ("while True: print('x' * 1000)", RunStatus.OUTPUT_LIMIT, None),
        ("open('f', 'wb').write(bytes(64 << 20))", RunStatus.ERROR, 1),
    ],
)
async def test_every_end_has_its_status(sandbox, code, status, exit_code):
    result = await sandbox.run_python(code, limits=SHORT)
    assert (result.status, result.exit_code) == (status, exit_code), result


async def test_processor_time_is_that_of_all_processes_together(sandbox):
    limits = Limits(**{**LIMITS.model_dump(), "wall_seconds": 20.0, "cpu_seconds": 0.5})
    spin = "import os\nfor _ in range(3): os.fork()\nwhile True: pass"
    result = await sandbox.run_python(spin, limits=limits)
    assert result.status is RunStatus.CPU_LIMIT
    assert result.seconds < 10


async def test_input_files_and_both_outputs_go_where_they_belong(sandbox):
    code = "import sys, helper\nprint(helper.f(input()))\nprint('oops', file=sys.stderr)"
    files = {"helper.py": b"f = str.upper", "deep/er/x.txt": b"1"}
    result = await sandbox.run_python(code, stdin="abc\n", files=files)
    assert (result.stdout, result.stderr, result.cut) == ("ABC\n", "oops\n", False)
    listed = await sandbox.run(["find", ".", "-type", "f"], files=files)
    assert sorted(listed.stdout.split()) == ["./deep/er/x.txt", "./helper.py"]


async def test_output_is_cut_with_a_mark_after_so_many_characters(sandbox):
    limits = Limits(**{**LIMITS.model_dump(), "output_chars": 100})
    result = await sandbox.run_python("print('é' * 101, end='')", limits=limits)
    assert (result.stdout, result.cut) == (
        "é" * 100 + "\n[cut: only the first 100 characters are shown]",
        True,
    )
    whole = await sandbox.run_python("print('é' * 100, end='')", limits=limits)
    assert (whole.stdout, whole.cut) == ("é" * 100, False)


async def test_a_large_input_that_nobody_reads_does_not_hang(sandbox):
    result = await sandbox.run_python("print(1)", stdin="x" * (4 << 20))
    assert (result.status, result.stdout) == (RunStatus.OK, "1\n")


async def test_a_program_that_the_image_lacks_is_an_error_as_in_a_shell(sandbox):
    result = await sandbox.run(["no-such-program"])
    assert (result.status, result.exit_code) == (RunStatus.ERROR, 127)
    assert "no-such-program: No such file" in result.stderr
    assert (await sandbox.run(["echo", "a\0b"])).exit_code == 126
    with pytest.raises(ValueError, match="needs a name"):
        await sandbox.run([])


SPOOR = """
import os, pathlib, ctypes, sysconfig
for place in ("/tmp/work/mine", "/tmp/spoor", "/dev/shm/spoor", "/dev/mqueue/spoor"):
    try:
        pathlib.Path(place).write_text("secret")
    except OSError as error:
        print(place, error)
os.makedirs("/tmp/deep/" + "a/" * 200)
"""
FIND = """
import os
print(*map(os.listdir, ("/tmp", ".", "/dev/shm", "/dev/mqueue")))
print([p for p in os.listdir("/proc") if p.isdigit() and p not in ("1", str(os.getpid()))])
"""


async def test_a_container_is_used_again_and_shows_nothing_of_the_run_before(sandbox):
    await sandbox.run_python(SPOOR)
    kept = idle(sandbox)
    result = await sandbox.run_python(FIND)
    assert result.stdout == "['work'] ['main.py'] [] []\n[]\n"
    assert idle(sandbox) == kept


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess; subprocess.Popen(['sleep', '600'])",
        "import os, time\nif os.fork() == 0:\n    os.setsid(); os.fork() or time.sleep(600)",
        "import ctypes; print(ctypes.CDLL(None).shmget(7, 4096, 0o1666))",
        "import time; time.sleep(60)",
    ],
    ids=["child", "daemon", "system v shared memory", "wall limit"],
)
async def test_a_container_in_doubt_is_replaced(sandbox, code):
    await sandbox.run_python("1")
    before = idle(sandbox)
    result = await sandbox.run_python(code, limits=SHORT)
    assert result.seconds < 4
    assert set(idle(sandbox)) < set(before)


async def test_a_container_is_replaced_after_so_many_uses():
    need_docker()
    sandbox = DockerSandbox(settings(containers=1, recycle=2))
    seen = []
    for _ in range(4):
        await sandbox.run_python("1")
        seen.append(idle(sandbox))
    await sandbox.close()
    assert [len(one) for one in seen] == [1, 0, 1, 0]
    assert seen[0] != seen[2]


async def test_a_container_is_as_closed_as_docker_can_make_it(sandbox):
    session = await sandbox.open()
    try:
        (found,) = json.loads(" ".join(docker("inspect", sandbox._pool._used.copy().pop().id)))
        host, config = found["HostConfig"], found["Config"]
        assert found["Mounts"] == [] and not host["Binds"] and not host["Privileged"]
        assert (host["NetworkMode"], host["ReadonlyRootfs"]) == ("none", True)
        assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], None)
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["PidsLimit"] == LIMITS.processes + 2
        assert host["Memory"] == host["MemorySwap"] == (96 + 16 + 8 + 24) << 20
        assert host["NanoCpus"] == 1_000_000_000 and host["LogConfig"]["Type"] == "none"
        assert list(host["Tmpfs"]) == ["/tmp"] and "nosuid,nodev" in host["Tmpfs"]["/tmp"]
        assert config["User"] == "65534:65534" and host["AutoRemove"] and config["StdinOnce"]
        status = await session.run(["cat", "/proc/self/status"])
        lines = dict(line.split(":\t", 1) for line in status.stdout.splitlines())
        assert {lines[key] for key in lines if key.startswith("Cap")} == {"0" * 16}
        assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
        network = (await session.run(["cat", "/proc/net/dev"])).stdout.splitlines()[2:]
        assert [line.split(":")[0].strip() for line in network] == ["lo"]
    finally:
        await session.close()


async def test_the_first_process_can_be_neither_signalled_nor_read_nor_traced(sandbox):
    code = """
import ctypes, os, signal
for number in range(1, 32):
    os.kill(1, number)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())
for name in ("environ", "mem", "maps", "fd/0", "fd/1", "root"):
    try:
        open(f"/proc/1/{name}", "rb").read(1)
        print(name)
    except OSError:
        pass
"""
    result = await sandbox.run_python(code)
    assert (result.status, result.stdout) == (RunStatus.OK, "-1 1\n"), result


async def test_a_session_keeps_variables_and_files_and_shows_the_last_expression(sandbox):
    session = await sandbox.open({"data.txt": b"41"})
    try:
        assert (await session.execute("x = int(open('data.txt').read())")).stdout == ""
        assert (await session.execute("def f():\n    return x + 1\nf()")).stdout == "42\n"
        wrong = await session.execute("print(1)\nf(")
        assert (wrong.status, wrong.exit_code) == (RunStatus.ERROR, 1)
        assert "SyntaxError" in wrong.stderr and not wrong.restarted
        assert "docker" not in (await session.execute("1 / 0")).stderr
        await session.write("a/b.txt", b"\x00\xff")
        assert await session.read("a/b.txt") == b"\x00\xff"
        again = await session.run(["sh", "-c", "wc -c <a/b.txt; pwd; echo $x"])
        assert again.stdout == "2\n/tmp/work\n\n"
        assert (await session.execute("f()")).stdout == "42\n"
    finally:
        await session.close()
        await session.close()
    with pytest.raises(EnvError, match="closed"):
        await session.execute("1")


async def test_a_session_that_is_closed_ends_what_runs_in_it(sandbox):
    session = await sandbox.open()
    running = asyncio.create_task(session.execute("import time; time.sleep(60)"))
    await asyncio.sleep(0.5)
    started = time.perf_counter()
    await session.close()
    with pytest.raises(EnvError, match="closed while it ran"):
        await running
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import os; os._exit(0)", RunStatus.OK),
        ("raise SystemExit(2)", RunStatus.ERROR),
        ("import os; os.kill(os.getpid(), 11)", RunStatus.KILLED),
        ("while True: pass", RunStatus.WALL_LIMIT),
        ("y = bytearray(400 << 20)", RunStatus.MEMORY_LIMIT),
    ],
)
async def test_a_session_outlives_its_interpreter_with_its_files(sandbox, code, status):
    session = await sandbox.open({"kept": b"1"})
    try:
        await session.execute("x = 1")
        ended = await session.execute(code, limits=SHORT)
        assert (ended.status, ended.restarted) == (status, True)
        after = await session.execute("'x' in globals(), open('kept').read()")
        assert (after.stdout, after.restarted) == ("(False, '1')\n", False)
    finally:
        await session.close()


async def test_what_a_run_leaves_in_the_background_ends_with_it_and_variables_live_on(sandbox):
    session = await sandbox.open()
    try:
        await session.execute("x = 5")
        command = "(sleep 600 &); setsid sleep 600 & echo started"
        assert (await session.run(["sh", "-c", command])).stdout == "started\n"
        await session.execute("import subprocess; p = subprocess.Popen(['sleep', '600'])")
        # The interpreter's own child is part of its state.
        listed = await session.run(["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"])
        assert listed.stdout.count("sleep 600") == 1
        assert (await session.execute("x, p.poll()")).stdout == "(5, None)\n"
    finally:
        await session.close()


async def test_a_run_that_kills_the_interpreter_says_so(sandbox):
    session = await sandbox.open()
    try:
        await session.execute("x = 5")
        ended = await session.run(["python3", "-c", "import os; os.kill(-1, 9)"])
        assert ended.restarted
        after = await session.execute("'x' in globals()")
        assert (after.stdout, after.restarted) == ("False\n", False)
    finally:
        await session.close()


async def test_files_go_through_no_link_and_to_no_device(sandbox):
    session = await sandbox.open()
    try:
        make = (
            "ln -s /etc out; ln -s /etc/passwd p; mkfifo pipe; ln -s here there; echo 1 >here; "
            "truncate -s 1T holes"
        )
        await session.run(["sh", "-c", make])
        for path in ("out/passwd", "p", "pipe", "missing", "there", "holes"):
            with pytest.raises(FileNotFoundError):
                await session.read(path)
        for path in ("out/new", "p", "there", "pipe"):
            with pytest.raises(OSError, match="in the sandbox"):
                await session.write(path, b"1")
        with pytest.raises(OSError, match="No space left"):
            await session.write("big", bytes(32 << 20))
        await session.write("here", b"2")
        assert await session.read("here") == b"2"
    finally:
        await session.close()


async def test_sessions_see_nothing_of_each_other_and_do_not_fork(sandbox):
    one, other = await sandbox.open({"a": b"1"}), await sandbox.open({"b": b"2"})
    try:
        await one.execute("x = 1")
        assert (await other.execute("'x' in globals()")).stdout == "False\n"
        assert (await other.run(["ls"])).stdout == "b\n"
        with pytest.raises(TypeError, match="replay"):
            await one.fork()
        assert sandbox.forkable == "replay"
    finally:
        await one.close()
        await other.close()


async def test_no_more_containers_live_than_allowed_and_a_call_waits_for_one():
    need_docker()
    sandbox = DockerSandbox(settings(containers=2))
    sessions = [await sandbox.open(), await sandbox.open()]
    waiting = asyncio.create_task(sandbox.run_python("print(1)"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert len(here()) <= 2 + len(sandbox._pool._removals) + 4
    await sessions.pop().close()
    assert (await waiting).stdout == "1\n"
    # Another shape takes the place of a container that waits.
    await sessions.pop().close()
    other = Limits(**{**LIMITS.model_dump(), "memory_mb": 64})
    assert (await sandbox.run_python("print(2)", limits=other)).stdout == "2\n"
    assert len(idle(sandbox)) == 2
    await sandbox.close()
    await sandbox.close()
    with pytest.raises(EnvError, match="closed"):
        await sandbox.run_python("1")


async def test_a_cancelled_run_costs_its_container_and_nothing_else(sandbox):
    running = asyncio.create_task(sandbox.run_python("import time; time.sleep(30)"))
    await asyncio.sleep(1.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    started = time.perf_counter()
    assert (await sandbox.run_python("print(1)")).stdout == "1\n"
    assert time.perf_counter() - started < 15


async def test_a_container_that_is_killed_from_outside_is_a_failure_and_the_next_run_works(sandbox):
    session = await sandbox.open()
    (used,) = sandbox._pool._used
    running = asyncio.create_task(session.execute("import time; time.sleep(30)"))
    await asyncio.sleep(0.3)
    docker("kill", used.id)
    with pytest.raises(EnvError, match="stream"):
        await running
    with pytest.raises(EnvError, match="gone"):
        await session.read("x")
    await session.close()
    await sandbox.run_python("1")
    for id_ in idle(sandbox):
        docker("kill", id_)
    assert (await sandbox.run_python("print(1)")).stdout == "1\n"


async def test_a_daemon_that_hangs_is_a_failure_within_the_deadline(tmp_path):
    need_docker()
    proxy = Proxy(tmp_path / "docker.sock")
    sandbox = DockerSandbox(settings(host=proxy.host))
    session = await sandbox.open()
    assert (await session.execute("1")).stdout == "1\n"
    sandbox._daemon._settings = settings(host=proxy.host, daemon_seconds=1.0)
    proxy.freeze()
    started = time.perf_counter()
    with pytest.raises(EnvError, match="ask for events"):
        await session.execute("2", limits=Limits(wall_seconds=0.1))
    with pytest.raises(EnvError, match="start a container"):
        await sandbox.open()
    # The guest's grace, and two calls to the daemon.
    assert time.perf_counter() - started < 0.1 + 5 + 2 * (1 + 1) + 3
    proxy.close()
    await session.close()
    await asyncio.gather(*sandbox._pool._removals)
    # What the daemon was asked for while it hung, it may do now: the next sweep finds it.
    after = DockerSandbox(settings())
    after._daemon._label = sandbox._daemon._label
    assert (await after.run_python("print(1)")).stdout == "1\n"
    await asyncio.sleep(0.5)
    await after.close()


WORKER = """
import asyncio
from docker_fakes import settings
from agentrl.sandbox.docker import DockerSandbox

async def main():
    sandbox = DockerSandbox(settings())
    await sandbox.run_python("1")
    session = await sandbox.open()
    print("ready", flush=True)
    await session.execute("import time; time.sleep(600)")

asyncio.run(main())
"""


async def test_containers_do_not_outlive_a_worker_that_is_killed():
    need_docker()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)},
    ) as worker:
        assert worker.stdout.readline() == b"ready\n"
        await asyncio.sleep(0.5)
        assert len(containers_of(worker.pid)) >= 1
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        deadline = time.monotonic() + 20
        while (left := containers_of(worker.pid)) and time.monotonic() < deadline:
            await asyncio.sleep(0.3)
    assert left == []


async def test_orphans_that_never_started_are_removed_by_the_next_sandbox():
    need_docker()
    boot, namespace, pid, _ = owner().split()
    (orphan,) = docker(
        "create", "--label", f"{LABEL}={boot} {namespace} {pid} 1 x", "agentrl-test:latest", "true"
    )
    sandbox = DockerSandbox(settings())
    await sandbox.run_python("1")
    assert orphan not in docker("ps", "-aq", "--no-trunc")
    await sandbox.close()


async def test_an_image_without_python_is_a_setup_error(tmp_path):
    need_docker()
    before = here()
    (empty,) = docker("import", "--change", "ENV A=1", _empty_tar(tmp_path), "agentrl-empty:test")
    try:
        with pytest.raises(SetupError, match="no python3"):
            await DockerSandbox(settings(image="agentrl-empty:test")).run_python("1")
    finally:
        docker("rmi", empty)
    assert here() == before


def _empty_tar(tmp_path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "empty.tar"
    subprocess.run(["tar", "-C", str(tmp_path), "-cf", str(path), "file"], check=True)
    return str(path)
