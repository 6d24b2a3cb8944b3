"""Live sessions in bubblewrap: what stays, what a fork takes along, and what ends them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrl.core.errors import EnvError
from agentrl.sandbox import BubblewrapSettings, Limits, RunStatus
from agentrl.sandbox.bubblewrap import BubblewrapSandbox

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap"),
]
LIMITS = Limits(wall_seconds=10.0, cpu_seconds=5.0, memory_mb=128, processes=8, disk_mb=8)


@pytest.fixture
async def sandbox() -> AsyncIterator[BubblewrapSandbox]:
    made = BubblewrapSandbox(BubblewrapSettings(limits=LIMITS, preload=()))
    yield made
    await made.close()


async def shown(session, code: str) -> str:
    result = await session.execute(code)
    assert result.status is RunStatus.OK, result
    return result.stdout


async def test_variables_files_and_the_last_expression_stay(sandbox):
    session = await sandbox.open({"data/in.txt": "grüß\n".encode()})
    assert await shown(session, "x = 3\nx * 2") == "6\n"
    assert await shown(session, "x; None") == ""
    assert await shown(session, "_ + 1") == "7\n"
    assert await shown(session, "open('data/in.txt').read()") == "'grüß\\n'\n"
    assert await shown(session, "open('out.txt', 'w').write('日本 🙂')") == "4\n"
    assert (await session.read("out.txt")).decode() == "日本 🙂"
    assert await shown(session, "import os; os.getcwd(), sorted(os.listdir())") == (
        "('/home/user', ['data', 'out.txt'])\n"
    )


async def test_an_exception_keeps_the_state_and_shows_only_the_programs_own_lines(sandbox):
    session = await sandbox.open()
    failed = await session.execute("x = 1\ndef f(n):\n    return n / 0\nf(x)")
    assert (failed.status, failed.restarted) == (RunStatus.ERROR, False)
    marks = set(" ~^")  # below what failed; which lines get them depends on the version of Python
    assert [line for line in failed.stderr.splitlines()[1:] if set(line) - marks] == [
        '  File "<run 1>", line 4, in <module>',
        "    f(x)",
        '  File "<run 1>", line 3, in f',
        "    return n / 0",
        "ZeroDivisionError: division by zero",
    ]
    wrong = await session.execute("x = = 2")
    assert wrong.status is RunStatus.ERROR and "SyntaxError" in wrong.stderr
    assert "interpreter.py" not in wrong.stderr
    assert await shown(session, "x") == "1\n"


async def test_standard_input_is_empty(sandbox):
    session = await sandbox.open()
    assert await shown(session, "import sys; sys.stdin.read()") == "''\n"
    assert "EOFError" in (await session.execute("input()")).stderr


async def test_output_beyond_the_limit_is_cut_and_said(sandbox):
    session = await sandbox.open()
    few = LIMITS.model_copy(update={"output_chars": 100})
    result = await session.execute("print('ab' * 500_000)", limits=few)
    assert result.cut and result.status is RunStatus.OK
    assert result.stdout == "ab" * 50 + "\n[cut: only the first 100 characters are shown]"
    assert not (await session.execute("print('ab')", limits=few)).cut


async def test_a_fork_has_the_variables_and_files_of_that_moment_and_neither_sees_the_other(
    sandbox,
):
    parent = await sandbox.open({"f": b"0"})
    await shown(parent, "import os\nx = [1]\nos.mkdir('d')\nopen('d/g', 'w').write('old')")
    child = await parent.fork()
    await shown(parent, "x.append('parent'); open('f', 'w').write('p'); os.rename('d/g', 'd/h')")
    await shown(child, "x.append('child'); open('d/g', 'a').write('+new'); os.remove('f')")
    assert await shown(parent, "x, open('f').read(), os.listdir('d')") == (
        "([1, 'parent'], 'p', ['h'])\n"
    )
    assert await shown(child, "x, os.path.exists('f'), open('d/g').read()") == (
        "([1, 'child'], False, 'old+new')\n"
    )
    assert await child.read("d/g") == b"old+new"
    with pytest.raises(FileNotFoundError):
        await child.read("f")


async def test_a_fork_goes_on_in_the_folder_and_at_the_place_in_a_file_where_its_parent_was(
    sandbox,
):
    parent = await sandbox.open({"deep/log": b"0123456789"})
    await shown(parent, "import os; os.chdir('deep'); f = open('log', 'r+b', 0); f.read(4); None")
    await shown(
        parent, "import tempfile; t = tempfile.TemporaryFile(); t.write(b'kept'); t.flush()"
    )
    child = await parent.fork()
    await shown(child, "f.write(b'XX'); t.write(b'!'); t.flush()")
    assert await shown(child, "os.getcwd(), t.seek(0), t.read()") == (
        "('/home/user/deep', 0, b'kept!')\n"
    )
    assert await shown(parent, "f.read(), t.seek(0), t.read()") == "(b'456789', 0, b'kept')\n"
    assert await child.read("deep/log") == b"0123XX6789"


@pytest.mark.parametrize("first", ["parent", "child"])
async def test_a_fork_and_its_parent_survive_each_other(sandbox, first):
    parent = await sandbox.open()
    await shown(parent, "x = 5")
    child = await parent.fork()
    ended, other = (parent, child) if first == "parent" else (child, parent)
    await ended.close()
    await ended.close()
    assert await shown(other, "x") == "5\n"
    with pytest.raises(EnvError, match="closed"):
        await ended.execute("x")


async def test_one_forks_death_leaves_its_parent_and_sibling_alone(sandbox):
    parent = await sandbox.open()
    await shown(parent, "x = 5")
    left, right = await parent.fork(), await parent.fork()
    died = await left.execute("import os; os._exit(3)")
    assert (died.status, died.exit_code, died.restarted) == (RunStatus.ERROR, 3, True)
    assert "NameError" in (await left.execute("x")).stderr
    assert await shown(parent, "x") == await shown(right, "x") == "5\n"


async def test_an_interpreter_that_ends_is_started_anew_with_its_files(sandbox):
    session = await sandbox.open()
    await shown(session, "x = 1; open('f', 'w').write('kept')")
    ended = await session.execute("print('bye'); raise SystemExit(0)")
    assert (ended.status, ended.exit_code, ended.stdout, ended.restarted) == (
        RunStatus.OK,
        0,
        "bye\n",
        True,
    )
    assert await shown(session, "'x' in globals(), open('f').read()") == "(False, 'kept')\n"
    twin = await session.fork()
    assert await shown(twin, "open('f').read()") == "'kept'\n"


@pytest.mark.parametrize(
    ("code", "status", "wall", "cpu"),
    [
        ("while True: pass", RunStatus.CPU_LIMIT, 10.0, 0.3),
        ("import time; time.sleep(60)", RunStatus.WALL_LIMIT, 0.5, 5.0),
        ("import os; os.kill(os.getpid(), 11)", RunStatus.KILLED, 10.0, 5.0),
        ("import os\nwhile True: os.write(1, b'x' * 65536)", RunStatus.OUTPUT_LIMIT, 10.0, 5.0),
    ],
)
async def test_a_run_that_passes_a_limit_is_ended_and_the_session_goes_on(
    sandbox, code, status, wall, cpu
):
    session = await sandbox.open({"f": b"kept"})
    tight = LIMITS.model_copy(update={"wall_seconds": wall, "cpu_seconds": cpu})
    result = await session.execute(f"x = 1\n{code}", limits=tight)
    assert (result.status, result.exit_code, result.restarted) == (status, None, True)
    assert await shown(session, "'x' in globals(), open('f').read()") == "(False, 'kept')\n"


async def test_too_much_memory_is_an_outcome_that_leaves_the_variables(sandbox):
    session = await sandbox.open()
    result = await session.execute("x = 1\ny = bytearray(10 ** 9)")
    assert (result.status, result.restarted) == (RunStatus.MEMORY_LIMIT, False)
    assert await shown(session, "x") == "1\n"


async def test_paths_lead_nowhere_else(sandbox):
    session = await sandbox.open()
    await shown(session, "import os; os.symlink('/etc', 'etc'); os.symlink('/etc/passwd', 'p')")
    await shown(session, "os.mkfifo('pipe'); os.symlink('in', 'inside'); open('in','w').write('x')")
    for path in ("/etc/passwd", "../x", "p", "etc/passwd", "pipe", "", ".", "a/../in", "nope"):
        if path != "a/../in":
            with pytest.raises(FileNotFoundError):
                await session.read(path)
        with pytest.raises(OSError) if path != "nope" else _nothing():
            await session.write(path, b"evil")
    assert await session.read("inside") == b"x"
    await session.write("inside", b"through a link within")
    await session.write("new/folder/file", b"y" * 100_000)
    assert await shown(session, "open('in').read(), os.path.getsize('new/folder/file')") == (
        "('through a link within', 100000)\n"
    )


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


async def test_a_link_that_changes_while_it_is_written_through_never_leads_out(sandbox):
    session = await sandbox.open({"t/f": b"in"})
    swap = """
import os, threading
def swap():
    while True:
        for target in ("/tmp", "t"):
            os.symlink(target, "s.new"); os.replace("s.new", "s")
threading.Thread(target=swap, daemon=True).start()
"""
    await shown(session, swap)
    for _ in range(100):
        try:
            await session.write("s/f", b"in")
        except OSError:
            continue
    assert await shown(session, "os.path.exists('/tmp/f')") == "False\n"


async def test_another_program_runs_in_the_folder_and_leaves_the_interpreter_alone(sandbox):
    session = await sandbox.open({"a.txt": b"3\n1\n2\n"})
    await shown(session, "x = 1")
    done = await session.run(["sh", "-c", "sort a.txt > b.txt; cat; exit 4"], stdin="hey")
    assert (done.status, done.exit_code, done.stdout) == (RunStatus.ERROR, 4, "hey")
    assert await shown(session, "x, open('b.txt').read()") == "(1, '1\\n2\\n3\\n')\n"
    missing = await session.run(["no-such-program"])
    assert missing.exit_code == 127 and "no-such-program" in missing.stderr
    tight = LIMITS.model_copy(update={"wall_seconds": 0.5})
    slow = await session.run(["sleep", "100"], limits=tight)
    assert slow.status is RunStatus.WALL_LIMIT
    assert await shown(session, "x") == "1\n"


async def test_a_program_in_the_background_stays_until_the_session_is_closed(sandbox):
    session = await sandbox.open()
    started = await session.run(["sh", "-c", "(sleep 0.3; echo late > late.txt) & echo started"])
    assert started.stdout == "started\n" and started.seconds < 0.3
    for _ in range(100):
        if await shown(session, "import os; os.path.exists('late.txt')") == "True\n":
            break
        await asyncio.sleep(0.05)
    assert await session.read("late.txt") == b"late\n"


async def test_runs_of_one_session_and_its_fork_wait_for_each_other(sandbox):
    session = await sandbox.open()
    slow = asyncio.create_task(session.execute("import time; time.sleep(0.3); x = 'done'"))
    await asyncio.sleep(0.05)
    child = await session.fork()
    assert slow.done()
    assert await shown(child, "x") == "'done'\n"


async def test_a_forged_reply_is_not_taken_for_the_next_run(sandbox):
    session = await sandbox.open()
    forge = """
import os, struct
for fd in range(3, 64):
    for number in range(40):
        try: os.write(fd, struct.pack("<IBi", number, 0, 0))
        except OSError: break
print("after")
"""
    await session.execute(forge)
    for n in range(45):
        assert await shown(session, f"print({n})") in (f"{n}\n", f"after\n{n}\n")


async def test_memory_of_one_session_is_out_of_reach_of_another_family(sandbox):
    victim = await sandbox.open({"mine": b"secret-of-victim"})
    await shown(victim, "x = 'secret-of-' + 'victim'")
    thief = await sandbox.open()
    looked = await shown(
        thief,
        """
import glob, os
print([int(p) for p in os.listdir('/proc') if p.isdigit()])
print([p for p in glob.glob('/proc/*/root/home/user/mine')], os.path.exists('mine'))
try: os.kill(-1, 9)
except OSError as error: print(error.strerror)
""",
    )
    assert looked == "[1, 2]\n[] False\nOperation not permitted\n"
    assert await shown(victim, "x") == "'secret-of-victim'\n"


@pytest.mark.slow
async def test_forks_of_forks_go_seventy_deep(sandbox):
    sessions = [await sandbox.open({"n": b"0"})]
    await shown(sessions[0], "path = [0]")
    for depth in range(1, 71):
        sessions.append(await sessions[-1].fork())
        await shown(sessions[-1], f"path.append({depth}); open('n', 'w').write('{depth}')")
    for session in sessions[:-1:2]:
        await session.close()
    assert await shown(sessions[-1], "len(path), path[-1], open('n').read()") == "(71, 70, '70')\n"
    assert await shown(sessions[1], "path, open('n').read()") == "([0, 1], '1')\n"


@pytest.mark.slow
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("sfx")), max_size=12))
def test_any_tree_of_forks_agrees_with_a_model(steps):
    async def play() -> None:
        sandbox = BubblewrapSandbox(BubblewrapSettings(limits=LIMITS, preload=()))
        live = [(await sandbox.open(), 0)]
        await shown(live[0][0], "n = 0")
        for which, what in steps:
            place = which % len(live)
            session, value = live[place]
            if what == "s":
                await shown(session, f"n += {place + 1}; open('n', 'w').write(str(n))")
                live[place] = (session, value + place + 1)
            elif what == "f":
                live.append((await session.fork(), value))
            elif len(live) > 1:
                await session.close()
                del live[place]
        for session, value in live:
            assert await shown(session, "n") == f"{value}\n"
            if value:
                assert await session.read("n") == str(value).encode()
        await sandbox.close()

    asyncio.run(play())


async def test_a_session_that_floods_its_channel_is_ended_for_it(sandbox):
    session = await sandbox.open()
    await session.execute(
        "import os, threading\n"
        "def flood():\n"
        "    while True:\n"
        "        os.write(fd, b'x' * 9000)\n"
        "for fd in range(3, 10):\n"
        "    try: os.fstat(fd); break\n"
        "    except OSError: pass\n"
        "threading.Thread(target=flood, daemon=True).start()\n"
        "import time; time.sleep(1)"
    )
    for _ in range(100):
        result = await session.execute("print(1)")
        if result.status is RunStatus.OK:
            break
    assert result.stdout == "1\n"


@pytest.mark.slow
async def test_threads_that_spin_between_runs_are_ended_and_quick_runs_are_not():
    limits = LIMITS.model_copy(update={"cpu_seconds": 0.3})
    sandbox = BubblewrapSandbox(BubblewrapSettings(limits=limits, preload=()))
    busy, quick = await sandbox.open(), await sandbox.open()
    spin = (
        "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()"
    )
    await shown(busy, spin)
    end = asyncio.get_running_loop().time() + 60.0
    # A busy machine gives a thread that spins little of its time.
    while busy._line is not None and asyncio.get_running_loop().time() < end:
        result = await quick.execute("sum(range(20_000))")
        assert result.status is RunStatus.OK and not result.restarted
    after = await busy.execute("print('anew')")
    assert (after.status, after.stdout, after.restarted) == (RunStatus.OK, "anew\n", True)
    await sandbox.close()


async def test_odd_names_and_arguments_are_refused_and_break_nothing(sandbox):
    session = await sandbox.open()
    for name in ("a\0b", "\ud800", "x" * 5000):
        with pytest.raises((OSError, ValueError)):
            await session.write(name, b"")
        with pytest.raises(FileNotFoundError):
            await session.read(name)
    assert (await session.run(["a\0b"])).exit_code == 126
    with pytest.raises(ValueError, match="argv"):
        await session.run([])
    assert await shown(session, "1") == "1\n"


async def test_a_fork_copies_links_holes_and_deep_folders_as_they_are(sandbox):
    session = await sandbox.open()
    await shown(
        session,
        """
import os
os.symlink('/etc/passwd', 'soft'); open('a', 'w').write('x'); os.link('a', 'b')
os.mkfifo('pipe'); os.chmod('a', 0o600)
for n in range(20):
    with open(f'sparse{n}', 'wb') as f: f.truncate(7 << 20)
os.makedirs('/'.join('d' * 60))
""",
    )
    child = await session.fork()
    code = """
import stat
print(os.readlink('soft'), os.stat('a').st_nlink, oct(os.stat('b').st_mode)[-3:],
      stat.S_ISFIFO(os.stat('pipe').st_mode), os.path.getsize('sparse9'),
      os.path.isdir('/'.join('d' * 60)), sum(os.stat(f'sparse{n}').st_blocks for n in range(20)))
"""
    assert await shown(child, code) == "/etc/passwd 2 600 True 7340032 True 0\n"
    await shown(child, "open('b', 'w').write('child')")
    assert await shown(session, "open('a').read()") == "'x'\n"


async def test_one_fork_cannot_end_all_with_a_word(sandbox):
    session = await sandbox.open()
    twin = await session.fork()
    await shown(session, "x = 1")
    refused = await twin.execute("import os; os.kill(-1, 9)")
    assert refused.stderr.endswith("PermissionError: [Errno 1] Operation not permitted\n")
    assert await shown(session, "x") == "1\n"
