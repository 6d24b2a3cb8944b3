"""A plain process with limits: what it bounds, and that it says what it does not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agentrl.core.errors import EnvError
from agentrl.sandbox import Limits, RunStatus, SubprocessSettings, shared
from agentrl.sandbox.subprocess import SubprocessSandbox

LIMITS = Limits(wall_seconds=20.0, cpu_seconds=5.0, memory_mb=128, disk_mb=8)


@pytest.fixture
def sandbox() -> SubprocessSandbox:
    return SubprocessSandbox(SubprocessSettings(limits=LIMITS))


def test_its_docstring_says_that_it_does_not_isolate():
    assert "NO isolation" in (SubprocessSandbox.__doc__ or "")
    assert SubprocessSandbox.forkable == "replay"


async def test_it_is_the_one_asked_for_by_name():
    assert isinstance(shared(SubprocessSettings()), SubprocessSandbox)


async def test_a_program_gets_its_input_and_files_and_leaves_no_folder(sandbox):
    code = "import os, sys; print(input(), open('a/b').read(), os.getcwd()); sys.exit(3)"
    result = await sandbox.run_python(code, stdin="hällo", files={"a/b": b"file"})
    hello, file, folder = result.stdout.split()
    assert (result.status, result.exit_code, hello, file) == (RunStatus.ERROR, 3, "hällo", "file")
    assert not Path(folder).exists()
    program = await sandbox.run(["cat", "-", "f"], stdin="one ", files={"f": b"two"})
    assert (program.status, program.stdout) == (RunStatus.OK, "one two")
    assert (await sandbox.run(["no-such-program"])).exit_code == 127


@pytest.mark.parametrize(
    ("code", "statuses"),
    [
        ("import time; time.sleep(100)", {RunStatus.WALL_LIMIT}),
        ("x = bytearray(10 ** 9)", {RunStatus.MEMORY_LIMIT}),
        ("import os\nwhile True: os.write(1, b'x' * 65536)", {RunStatus.OUTPUT_LIMIT}),
        ("import os; os.abort()", {RunStatus.KILLED}),
        ("open('f', 'wb').write(bytes(9 << 20))", {RunStatus.ERROR}),
    ],
)
async def test_a_limit_has_its_outcome(sandbox, code, statuses):
    limits = LIMITS.model_copy(update={"wall_seconds": 1.0}) if "sleep" in code else LIMITS
    assert (await sandbox.run_python(code, limits=limits)).status in statuses


def runs(pid: int) -> bool:
    """Whether this process is there and has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_what_a_program_left_in_its_group_ends_with_it(sandbox):
    code = "import os, time\npid = os.fork()\nif pid == 0: time.sleep(1000)\nprint(pid)"
    left = int((await sandbox.run_python(code)).stdout)
    for _ in range(100):
        if not runs(left):
            break
        await asyncio.sleep(0.02)
    assert not runs(left)


async def test_a_session_keeps_its_variables_until_its_interpreter_ends(sandbox):
    session = await sandbox.open({"f": b"1"})
    assert (await session.execute("x = int(open('f').read())\nx + 1")).stdout == "2\n"
    failed = await session.execute("x / 0")
    assert failed.status is RunStatus.ERROR and failed.stderr.endswith("division by zero\n")
    assert (await session.execute("x")).stdout == "1\n"
    await session.write("g/h", b"2")
    assert (await session.run(["cat", "f", "g/h"])).stdout == "12"
    ended = await session.execute("import os; os._exit(4)")
    assert (ended.status, ended.exit_code, ended.restarted) == (RunStatus.ERROR, 4, True)
    again = await session.execute("'x' in globals()")
    assert (again.stdout, again.restarted) == ("False\n", False)
    folder = (await session.execute("import os; print(os.getcwd())")).stdout.strip()
    await session.close()
    await session.close()
    assert not Path(folder).exists()
    with pytest.raises(EnvError, match="closed"):
        await session.execute("1")


async def test_a_session_ends_a_run_at_its_deadline_and_cannot_fork(sandbox):
    session = await sandbox.open()
    tight = LIMITS.model_copy(update={"wall_seconds": 0.5})
    slow = await session.execute("while True: pass", limits=tight)
    assert (slow.status, slow.restarted) == (RunStatus.WALL_LIMIT, True)
    assert (await session.execute("3")).stdout == "3\n"
    with pytest.raises(EnvError, match="replay"):
        await session.fork()
    await session.close()


async def test_names_lead_nowhere_else(sandbox, tmp_path):
    session = await sandbox.open()
    await session.execute(f"import os; os.symlink({str(tmp_path)!r}, 'out')")
    for name in ("../x", "/etc/passwd", "out/x"):
        with pytest.raises(PermissionError):
            await session.write(name, b"evil")
        with pytest.raises(FileNotFoundError):
            await session.read(name)
    assert os.listdir(tmp_path) == []
    await session.close()


async def test_a_file_beside_a_program_can_be_imported(sandbox):
    result = await sandbox.run_python("import h; print(h.x)", files={"h.py": b"x = 41"})
    assert result.stdout == "41\n"
