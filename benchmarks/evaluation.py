"""Samples per second of a whole evaluation, beside inspect_ai and verifiers on the same tasks.

    python benchmarks/evaluation.py [--samples 256] [--runs 3]

A task is a conversation of 4 turns whose last reply is graded; the policy answers at once, so that
what is measured is the framework: 256 samples at a time, everything written to disk, from the call
to its return. Three of ours: a script in this process; our chat client against a server of this
machine that answers at once; the same with exact completions of tokens. The peers talk to the same
server, from virtual environments of their own (.ci/peers). Runs are taken in turn; medians.
Goal: at least ten times the peers' samples per second over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from evaluation_peers import HINT, TURNS, clocks
from rich.console import Console

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.types import Message, Task
from agentrl.engine.settings import AnyEngine, ChatSettings, OpenAISettings, ScriptedSettings
from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.evals.progress import Display
from agentrl.evals.run import evaluate
from agentrl.recipe.models import resolve_model
from agentrl.rollout.settings import RolloutSettings

PEERS = Path(os.environ.get("AGENTRL_PEERS", Path(__file__).parents[1] / ".venv-peers"))
AT_ONCE = 256
REPLY = "I have thought about it, and the answer is 42, as it was in all the turns before. "


class TalkEnv(Env):
    """A question, hints, and a grade of the last of `TURNS` replies."""

    forkable = "replay"

    def __init__(self, *, count: int = 256) -> None:
        self.count = count
        self._turn = 0

    def tasks(self, split: str) -> Sequence[Task]:
        """`count` questions."""
        return [Task(f"q{n}", {"answer": "42"}) for n in range(self.count)]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """The question."""
        self._turn = 0
        return (Message.of("user", f"Question {task.id[1:]}"),)

    async def step(self, action: str) -> StepResult:
        """A hint, or the grade."""
        self._turn += 1
        if self._turn < TURNS:
            return StepResult((Message.of("user", HINT),), 0.0, False, False, StepInfo())
        right = float("42" in action)
        return StepResult((), right, True, False, StepInfo(rewards={"correct": right}))

    def gold_action(self, task: Task, turn: int) -> str:
        """The reply that the server gives, too."""
        return REPLY


class _Server(asyncio.Protocol):
    """One keep-alive connection: every POST is answered at once."""

    def __init__(self, replies: Mapping[bytes, bytes], counts: list[int]) -> None:
        self.replies, self.counts, self.buffer = replies, counts, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = bytes(self.buffer[:head]).lower()
        at = lower.find(b"content-length:")
        size = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < head + 4 + size:
            return
        path = lower.split(b" ", 2)[1]
        self.buffer.clear()
        self.counts[0] += 1
        self.transport.write(self.replies[path])


def serve(pipe: Connection) -> None:
    """Both interfaces of an OpenAI-compatible server; tells its port, then counts when asked."""
    usage = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
    message = {"role": "assistant", "content": REPLY}
    chat = {
        "id": "1", "object": "chat.completion", "created": 1, "model": "policy", "usage": usage,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }  # fmt: skip
    plain = {"text": REPLY, "finish_reason": "stop", "token_ids": list(range(20, 40))}
    plain["logprobs"] = {"token_logprobs": [-0.5] * 20, "top_logprobs": None}
    text = {"id": "1", "object": "text_completion", "usage": usage, "choices": [plain]}
    replies = {b"/v1/chat/completions": _http(chat), b"/v1/completions": _http(text)}
    counts = [0]

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Server(replies, counts), "127.0.0.1", 0, backlog=2048
        )
        pipe.send(server.sockets[0].getsockname()[1])
        loop.add_reader(pipe.fileno(), lambda: (pipe.recv(), pipe.send(counts[0])))
        await server.serve_forever()

    asyncio.run(run())


def _http(record: object) -> bytes:
    body = json.dumps(record).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    return head % (len(body), body)


class Cost(NamedTuple):
    """Seconds of one evaluation, by the clock and of processor time."""

    seconds: float
    processor: float


def ours(engine: AnyEngine, samples: int, folder: Path, *, model: str = "") -> Cost:
    """One evaluation of ours."""
    suite = PlannedSuite(
        name="talk", version=1, env="evaluation:TalkEnv", args={"count": samples}, score="correct",
        max_tokens_per_turn=64,
    )  # fmt: skip
    plan = EvalPlan(
        policy="instant", model=model, engine=engine, suites=(suite,),
        rollout=RolloutSettings(concurrency=AT_ONCE),
    )  # fmt: skip
    quiet = Display(Console(file=StringIO()))
    started = clocks()
    results = evaluate(plan, folder, display=quiet)
    cost = Cost(*(now - then for now, then in zip(clocks(), started, strict=True)))
    assert results.suites[0].scored == samples, results.suites[0]
    return cost


def peer(name: str, url: str, samples: int, folder: Path) -> Cost:
    """One evaluation by a peer."""
    script = Path(__file__).with_name("evaluation_peers.py")
    done = subprocess.run(
        [str(PEERS / name / "bin" / "python"), str(script), name, url, str(samples), str(folder)],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["right"] == samples, told
    return Cost(told["seconds"], told["processor"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    count = options.samples
    chat = ChatSettings(base_url=url, model="policy", concurrency=AT_ONCE)
    exact = OpenAISettings(base_url=url, model="policy", concurrency=AT_ONCE, top_logprobs=0)
    model = resolve_model("tiny/search")
    rows: dict[str, Callable[[Path], Cost]] = {
        "agentrl, a script in process": lambda out: ours(
            ScriptedSettings(script="oracle"), count, out
        ),
        "agentrl, chat over HTTP": lambda out: ours(chat, count, out),
        "agentrl, exact completions over HTTP": lambda out: ours(exact, count, out, model=model),
    }
    for name in ("inspect", "verifiers"):
        if (PEERS / name).is_dir():
            rows[f"{name}, chat over HTTP"] = lambda out, name=name: peer(name, url, count, out)
        else:
            print(f"{name} is not there; .ci/peers makes it")
    with tempfile.TemporaryDirectory() as folder:
        ours(chat, 8, Path(folder) / "warm")
        ours(exact, 8, Path(folder) / "warm-exact", model=model)
        costs: dict[str, list[Cost]] = {row: [] for row in rows}
        for turn in range(options.runs):
            for number, (row, run) in enumerate(rows.items()):
                here.send(None)
                before = here.recv()
                costs[row].append(run(Path(folder) / f"{turn}-{number}"))
                here.send(None)
                asked = here.recv() - before
                assert asked == ("HTTP" in row) * count * TURNS, (row, asked)
    report(costs, count)
    server.terminate()


def report(costs: Mapping[str, Sequence[Cost]], count: int) -> None:
    """Print the median of each row, and how often that of our chat client goes into it."""
    middle = {
        row: Cost(*(statistics.median(values) for values in zip(*several, strict=True)))
        for row, several in costs.items()
    }
    base = middle["agentrl, chat over HTTP"]
    print(f"{count} samples of {TURNS} turns, {AT_ONCE} at a time; ratios to our chat over HTTP")
    print(f"{'':37}{'seconds':>9}{'samples/s':>11}{'ratio':>8}{'processor s':>13}{'ratio':>8}")
    for row, (seconds, processor) in middle.items():
        rates = f"{seconds:9.3f}{count / seconds:11.0f}{seconds / base.seconds:8.1f}"
        print(f"{row:37}{rates}{processor:13.3f}{processor / base.processor:8.1f}")


if __name__ == "__main__":
    main()
