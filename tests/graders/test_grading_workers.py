"""Grading processes: deadlines, deaths, bounds, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agentrl.core.errors import SetupError
from agentrl.graders.workers import MAX_REQUEST_BYTES, WorkerPool

HERE = str(Path(__file__).parent)
SLACK = 2.0
"""For machines that are busy with other tests."""


@pytest.fixture(scope="module")
def pool():
    sys.path.insert(0, HERE)
    made = WorkerPool("toy_grader", processes=2, memory_mb=512)
    assert made.call({"do": "echo", "said": 1}, deadline=30.0).value["said"] == 1
    yield made
    made.close()
    sys.path.remove(HERE)


def echoed(pool) -> float:
    """Seconds until an echo is back."""
    began = time.monotonic()
    assert pool.call({"do": "echo", "said": "x"}, deadline=10.0).value["said"] == "x"
    return time.monotonic() - began


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ended(pids, *, within: float) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not any(map(alive, pids)):
            return True
        time.sleep(0.02)
    return False


def test_a_worker_answers_and_lives_on(pool) -> None:
    pids = {pool.call({"do": "echo", "said": "x"}, deadline=10.0).value["pid"] for _ in range(6)}
    assert pids <= set(pool.worker_pids())
    assert os.getpid() not in pids


def test_a_hanging_request_costs_its_deadline_and_the_next_is_not_slowed(pool) -> None:
    began = time.monotonic()
    reply = pool.call({"do": "hang"}, deadline=0.3)
    assert reply.failure == "no verdict within 0.3 s"
    assert time.monotonic() - began < 0.4 + SLACK
    assert echoed(pool) < SLACK


def test_the_others_go_on_while_one_hangs(pool) -> None:
    hanging = pool.submit({"do": "hang"}, deadline=2.0)
    assert sum(echoed(pool) for _ in range(3)) < 2.0 and not hanging.done()
    assert hanging.result().failure


def test_a_worker_that_dies_is_told_and_replaced(pool) -> None:
    assert pool.call({"do": "die"}, deadline=10.0).failure == "the worker died"
    assert echoed(pool) < 5.0


def test_an_idle_worker_that_was_killed_costs_no_request(pool) -> None:
    echoed(pool)
    for pid in pool.worker_pids():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert [pool.call({"do": "echo", "said": n}, deadline=10.0).value["said"] for n in "abc"] == [
        *"abc"
    ]


def test_what_takes_too_much_memory_or_depth_fails_alone(pool) -> None:
    assert "512 MB" in pool.call({"do": "fill", "mb": 2048}, deadline=10.0).failure
    assert pool.call({"do": "fill", "mb": 8}, deadline=10.0).value["size"] == 8 << 20
    assert pool.call({"do": "deep"}, deadline=10.0).failure == "nested too deeply"
    assert pool.call({"do": "fail"}, deadline=10.0).failure == "ValueError: no such luck"


def test_a_request_that_is_too_large_is_refused_without_a_worker(pool) -> None:
    reply = pool.call({"do": "echo", "said": "x" * MAX_REQUEST_BYTES})
    assert "bytes" in reply.failure


async def test_many_tasks_share_the_workers_and_each_gets_its_own_reply(pool) -> None:
    futures = [pool.submit({"do": "echo", "said": n}, deadline=30.0) for n in range(50)]
    replies = await asyncio.gather(*map(asyncio.wrap_future, futures))
    assert [reply.value["said"] for reply in replies] == list(range(50))


def test_threads_share_the_workers(pool) -> None:
    found: dict[int, int] = {}

    def ask(number: int) -> None:
        found[number] = pool.call({"do": "echo", "said": number}, deadline=30.0).value["said"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == {number: number for number in range(8)}


def test_a_forked_owner_gets_workers_of_its_own(pool) -> None:
    code = (
        f"import os, sys; sys.path.insert(0, {HERE!r})\n"
        "from agentrl.graders.workers import WorkerPool\n"
        "pool = WorkerPool('toy_grader', processes=1)\n"
        "one = pool.call({'do': 'echo', 'said': 1}, deadline=30.0).value['pid']\n"
        "child = os.fork()\n"
        "two = pool.call({'do': 'echo', 'said': 1}, deadline=30.0).value['pid']\n"
        "if not child: os._exit(0 if one != two else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or int(one != two))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("how", ["kill", "close", "exit"])
def test_server_and_workers_end_with_their_owner(how) -> None:
    code = (
        f"import sys, time; sys.path.insert(0, {HERE!r})\n"
        "from agentrl.graders.workers import WorkerPool\n"
        "pool = WorkerPool('toy_grader', processes=2)\n"
        "pool.call({'do': 'echo', 'said': 1}, deadline=30.0)\n"
        "while len(pool.worker_pids()) < 2: time.sleep(0.01)\n"
        "pool.submit({'do': 'hang'}, deadline=60.0)\n"
        "print(pool._server._process.pid, *pool.worker_pids(), flush=True)\n"
        "how = sys.stdin.readline().strip()\n"
        "if how == 'close': pool.close(); print('closed', flush=True)\n"
        "if how != 'exit': time.sleep(60)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        pids = [int(one) for one in owner.stdout.readline().split()]
        assert len(pids) == 3 and all(map(alive, pids))
        if how == "kill":
            owner.kill()
        else:
            owner.stdin.write(f"{how}\n")
            owner.stdin.flush()
        assert ended(pids, within=10.0)
    finally:
        owner.kill()
        owner.wait()


def test_a_server_that_dies_is_replaced(pool) -> None:
    os.kill(pool._server._process.pid, signal.SIGKILL)
    # The first may reach a worker that lives a moment longer than its server.
    assert pool.call({"do": "echo", "said": 1}, deadline=10.0).value["said"] == 1
    assert pool.call({"do": "echo", "said": 2}, deadline=10.0).value["said"] == 2


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it() -> None:
    pool = WorkerPool("toy_grader", package="no_such_package", extra="math")
    with pytest.raises(SetupError, match=r'pip install "agentrl\[math\]"'):
        pool.call({"do": "echo", "said": 1})


@pytest.mark.slow
def test_a_deadline_holds_in_a_ray_actor() -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)

    @ray.remote
    class Grader:
        def __init__(self) -> None:
            sys.path.insert(0, HERE)
            from agentrl.graders.math import pool

            pool().call({"gold": "1", "answer": "1"}, deadline=60.0)

        def timed(self, answer: str):
            from agentrl.graders.math import grade_answer

            began = time.monotonic()
            grade = grade_answer(answer, "5")
            return time.monotonic() - began, str(grade.outcome)

    try:
        grader = Grader.remote()
        hanging = (
            r"\int_0^1 \frac{\sin(x^7)}{x^{13}+e^x} \cdot \int_0^x \frac{e^{t^3}}{t^5+1} dt dx"
        )
        seconds, outcome = ray.get(grader.timed.remote(hanging), timeout=120)
        assert outcome == "ungraded"
        assert 1.0 <= seconds <= 1.1 + SLACK
        seconds, outcome = ray.get(grader.timed.remote(r"\sum_{k=1}^{2} k"), timeout=60)
        assert (outcome, seconds < 0.5 + SLACK) == ("wrong", True)
    finally:
        ray.shutdown()
