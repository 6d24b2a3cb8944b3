"""Programs that know no answer and try to be paid all the same; each must earn nothing."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from agentrl.core.types import Task
from agentrl.envs.code import FunctionsEnv
from agentrl.envs.code.inside import encode
from agentrl.envs.code.problems import Case, Problem

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.bubblewrap,
    pytest.mark.skipif(
        shutil.which("bwrap") is None, reason="needs bwrap: apt-get install bubblewrap"
    ),
]

# What no program below can guess: values of a function, and a check that is code of its own.
CALLS = Problem(
    id="calls",
    text="Return the secret of a number.",
    entry="f",
    hidden=[
        Case(kind="call", args=[encode(n)], expected=encode([n, str(n * n + 7), {"k": n}]))
        for n in (3, 8)
    ],
)
CHECK = Problem(
    id="check",
    text="",
    entry="f",
    prefix='def f(n):\n    """The secret of a number."""\n',
    hidden=[
        Case(
            kind="program",
            source=(
                "def check(candidate):\n"
                "    assert candidate(3) == 'secret 16'\n"
                "    assert not candidate(-1)\n"
                "    assert candidate(4) > 'secret'\n\n"
                "check(f)\n"
            ),
            names=["f"],
        )
    ],
)
STDIN = Problem(
    id="stdin",
    text="Write the secret of the number that is read.",
    style="stdin",
    hidden=[Case(kind="stdin", source="3\n", expected="secret 16\n")],
)

EQUAL = """
class Equal(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __gt__(self, other): return True
    def __bool__(self): return False
    def __hash__(self): return 0
"""
FRAMES = """
import sys
def frames():
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
"""
CHEATS = {
    "says passed": "def f(n): print('PASSED OK 1 passed')\nprint('PASSED')",
    "leaves with 0": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "leaves in the call": "import os\ndef f(n): os._exit(0)",
    "raises SystemExit": "def f(n): raise SystemExit(0)",
    "equals everything": EQUAL + "def f(n): return Equal()",
    "an object that equals everything": (
        "class Any:\n    def __eq__(self, other): return True\ndef f(n): return Any()"
    ),
    "mock.ANY": "from unittest.mock import ANY\ndef f(n): return ANY",
    "a number that equals everything": (
        "class Equal(int):\n    def __eq__(self, other): return True\n"
        "    def __gt__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def f(n): return Equal()"
    ),
    "a list of what equals everything": EQUAL + "def f(n): return [Equal(), Equal(), Equal()]",
    "a mapping that has everything": (
        "class All(dict):\n    def __missing__(self, key): return self\n"
        "    def __eq__(self, other): return True\ndef f(n): return [All(), All(), All()]"
    ),
    "patches builtins": (
        "import builtins\nbuiltins.all = builtins.bool = lambda *_: True\n"
        "builtins.isinstance = lambda *_: True\nbuiltins.AssertionError = Warning\n"
        "def f(n): return None"
    ),
    "patches unittest": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *_: None\n"
        "unittest.TestCase.run = lambda *_: None\ndef f(n): return None"
    ),
    "patches json": (
        "import json\nold = json.dumps\njson.dumps = lambda *_, **__: old({'passed': True})\n"
        "def f(n): return True"
    ),
    "patches the harness": (
        "import __main__\n__main__.encode = lambda value: {'$': 'any', 'v': 1}\n"
        "__main__.decode = lambda *_, **__: True\n__main__.run_test = None\ndef f(n): return 1"
    ),
    "reads the frames": FRAMES
    + (
        "def f(n):\n    for frame in frames():\n        for value in frame.f_locals.values():\n"
        "            if isinstance(value, dict) and 'expected' in value: return value['expected']\n"
        "            if isinstance(value, str) and 'secret' in value: return 'secret 16'\n"
    ),
    "reads all objects": (
        "import gc\ndef f(n):\n    for one in gc.get_objects():\n"
        "        if isinstance(one, dict):\n            for key in ('expected', 'hidden'):\n"
        "                if key in one: return one[key]\n"
    ),
    "reads its files": (
        "import glob\ndef f(n):\n"
        "    for name in glob.glob('/tmp/*') + glob.glob('*') + ['/proc/self/fd/0']:\n"
        "        try: text = open(name).read()\n        except OSError: continue\n"
        "        if 'secret' in text: return 'secret 16'\n"
    ),
    "reads standard input again": (
        "import os, sys\ndef f(n):\n    sys.stdin.seek(0) if sys.stdin.seekable() else None\n"
        "    return 'secret 16' if 'secret' in sys.stdin.read() else os.read(0, 100000).decode()"
    ),
    "forks and lets both answer": "import os\nos.fork()\ndef f(n): return None",
    "forks and ends as the parent": "import os\nif os.fork(): os._exit(0)\ndef f(n): return None",
    "forks in the call": "import os\ndef f(n): return bool(os.fork())",
    "forges a verdict": FRAMES
    + (
        "import os\ndef f(n):\n    for frame in frames():\n"
        "        mark = frame.f_locals.get('mark')\n        if mark:\n"
        "            for fd in range(1, 20):\n                try:\n"
        '                    os.write(fd, f\'\\n{mark}{{"passed": true, "told": "", '
        '\\"refused\\": \\"\\", \\"missing\\": []}}\\n\'.encode())\n'
        "                except OSError: pass\n    os._exit(0)\n"
    ),
    "forges answers on every descriptor": (
        "import os\nfor fd in range(1, 30):\n"
        "    try: os.write(fd, b'\\n[0, {\"value\": true}]\\n')\n"
        "    except OSError: pass\ndef f(n): return None"
    ),
    "calls the harness's say": FRAMES
    + (
        "def f(n):\n    for frame in frames():\n        say = frame.f_locals.get('say')\n"
        "        if say:\n            say([0, {'value': True, 'passed': True}])\n"
        "            say([1, {'passed': True}])\n            say({'passed': True})\n"
    ),
    "ends in an exit hook": (
        "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(n): return None"
    ),
    "patches the exits": "import os\nos._exit = lambda code: None\ndef f(n): return None",
    "sets a trace": (
        "import sys\ndef trace(frame, event, value):\n    frame.f_trace_opcodes = True\n"
        "    return trace\nsys.settrace(trace)\ndef f(n): return None"
    ),
    "ends its parent": (
        "import os, signal\ndef f(n):\n    try: os.kill(os.getppid(), signal.SIGKILL)\n"
        "    except OSError: pass\n    return None"
    ),
    "a value too deep to compare": (
        "def f(n):\n    value = []\n    for _ in range(100000): value = [value]\n    return value"
    ),
    "a value that holds itself": (
        "def f(n):\n    value = []\n    value.append(value)\n    return value"
    ),
    "a value too large": "def f(n): return 'x' * 10_000_000",
    "hashes that collide": "def f(n): return {k * (2**61 - 1) for k in range(1, 100000)}",
    "runs for ever": "def f(n):\n    while True: pass",
    "takes all memory": "def f(n): return len(bytearray(10**12))",
    "a generator of everything": "import itertools\ndef f(n): return itertools.count()",
    "no function at all": "x = 1",
    "no Python at all": "def f(n) return 1",
}


async def earned(problem: Problem, code: str) -> tuple[float, bool]:
    env = FunctionsEnv(max_turns=1, seconds=0.5)
    await env.reset(Task(problem.id, problem.data()), seed=0)
    result = await env.step(f"```python\n{code}\n```")
    await env.close()
    return result.reward, result.terminated


@pytest.mark.slow
@pytest.mark.parametrize("code", CHEATS.values(), ids=CHEATS)
async def test_a_cheating_program_earns_nothing(code: str) -> None:
    assert await earned(CALLS, code) == (0.0, True)
    assert await earned(CHECK, code) == (0.0, True)


PRINTS: dict[str, Any] = {
    "says passed": "print('PASSED')",
    "nothing": "pass",
    "echoes": "import sys\nprint(sys.stdin.read())",
    "many guesses": "for n in range(100): print('secret', n)",
    "reads its files": "import glob\nfor one in glob.glob('*'): print(open(one).read())",
    "leaves with the right code": "import os\nos._exit(0)",
    "right, and then fails": "print('secret 16')\nraise SystemExit(3)",
    "right, and goes on for ever": "print('secret 16', flush=True)\nwhile True: pass",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", PRINTS.values(), ids=PRINTS)
async def test_a_cheating_program_of_standard_output_earns_nothing(code: str) -> None:
    assert await earned(STDIN, code) == (0.0, True)


async def test_the_secrets_can_be_earned() -> None:
    honest = "def f(n): return [n, str(n * n + 7), {'k': n}]"
    assert await earned(CALLS, honest) == (1.0, True)
    honest = "def f(n): return f'secret {n * n + 7}' if n > 0 else ''"
    assert await earned(CHECK, honest) == (1.0, True)
    assert await earned(STDIN, "print('secret', int(input()) ** 2 + 7)") == (1.0, True)
