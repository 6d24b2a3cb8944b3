"""Environment hosts: sessions over a socket, and what happens when a host or an env goes wrong."""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from agentrl.adapters.connection import Connection, Deadlines
from agentrl.adapters.envhost import EnvHost
from agentrl.adapters.envhost_client import EnvFactory
from agentrl.adapters.envhost_pool import HostPool, HostSettings
from agentrl.adapters.wire import PROTOCOL, FrameReader, encode_frame
from agentrl.core.errors import DataError, EnvError, RecipeError, RegistryError
from agentrl.core.fork import fork_env
from agentrl.core.types import Image, Task, ToolRecord

TASK = Task("t", {})
DEADLINES = Deadlines(open=10, reset=10, step=10, close=5)
FAST = {"backoff_seconds": 0.02}


class OneHost:
    """A host in this process, and the connection to it."""

    def __init__(self, path):
        self._path = path
        self.host = EnvHost(path)

    async def __aenter__(self):
        await self.host.start()
        self.connection = await Connection.open(self._path, name="here", seconds=5)
        return self

    async def __aexit__(self, *_):
        self.connection.fail("the test is over")
        await self.host.close()

    async def pick(self):
        return self.connection

    def path(self):
        return self._path

    async def env(self, name, *, deadlines=DEADLINES, **arguments):
        factory = EnvFactory(self, f"host_envs:{name}", arguments, deadlines=deadlines)
        await factory.describe()
        return factory()


@pytest.fixture
async def here(tmp_path):
    async with OneHost(tmp_path / "s") as one:
        yield one


async def test_a_remote_env_plays_as_the_env_that_it_stands_for(here):
    env = await here.env("Counter", goal=2)
    assert (env.forkable, env.stop) == ("copy", ("</count>",))
    assert env.tool_schemas[0]["name"] == "count"
    first = await env.reset(TASK, seed=5)
    assert [(one.role, one.text) for one in first] == [("system", "seed 5"), ("user", "t")]
    result = await env.step("go")
    assert (result.reward, result.terminated, result.truncated) == (0.75, False, False)
    assert result.observation[0].parts[1] == Image("image/png", b"\x00\xff")
    assert result.info.rewards == {"right": 0.25, "format": 0.5}
    assert result.info.tool_calls == (ToolRecord("count", {"to": [1]}, True, 0.125),)
    assert (result.info.malformed_calls, result.info.state_key) == (1, "turn 1")
    assert (await env.step("on")).terminated
    await env.close()
    await env.close()


async def test_fork_and_original_go_their_own_ways(here):
    env = await here.env("Counter", goal=9)
    await env.reset(TASK, seed=0)
    await env.step("a")
    other = await env.fork()
    await env.step("b")
    assert (await env.step("c")).info.state_key == "turn 3"
    await env.close()
    assert (await other.step("b")).info.state_key == "turn 2"


async def test_an_env_that_does_not_fork_by_copy_says_how_it_does(here):
    assert (await here.env("Replayed")).forkable == "replay"
    env = await here.env("Echo")
    await env.reset(TASK, seed=0)
    with pytest.raises(TypeError, match="'no'"):
        await env.fork()


async def test_a_remote_env_is_branched_by_replay_where_its_class_says_so(here):
    env = await here.env("Replayed")
    observations = [await env.reset(TASK, seed=4), (await env.step("a")).observation]
    twin = await fork_env(
        env, make=env._factory, task=TASK, seed=4, actions=["a"], observations=observations
    )
    assert (await twin.step("b")).observation[0].text == "b"
    with pytest.raises(EnvError, match=r"in <RemoteEnv of host_envs:Replayed>, turn 0"):
        await fork_env(
            env, make=env._factory, task=TASK, seed=4, actions=["c"], observations=observations
        )


@pytest.mark.parametrize(
    ("action", "kind", "words"),
    [
        ("raise", EnvError, r"Counter: step raised ValueError: the die has seven sides at .*py:\d"),
        ("sys.exit", EnvError, "step raised SystemExit: 3"),
        ("data error", DataError, r"^corpus.jsonl:3: no text$"),
        ("cancel itself", EnvError, "step was cancelled"),
        ("unsendable", EnvError, "cannot travel"),
    ],
)
async def test_an_env_that_fails_fails_alone_with_a_typed_error(here, action, kind, words):
    good, bad = await here.env("Counter", goal=9), await here.env("Counter", goal=9)
    await asyncio.gather(good.reset(TASK, seed=0), bad.reset(TASK, seed=0))
    seen = await asyncio.gather(good.step("a"), bad.step(action), return_exceptions=True)
    assert seen[0].info.state_key == "turn 1"
    assert type(seen[1]) is kind
    with pytest.raises(kind, match=words):
        raise seen[1]
    with pytest.raises(EnvError, match="reset comes first"):
        await bad.step("a")
    await bad.reset(TASK, seed=0)
    assert (await bad.step("a")).info.state_key == "turn 1"


async def test_an_env_that_cannot_be_made_says_why(here):
    with pytest.raises(DataError, match="no such file"):
        await here.env("Refuses")
    with pytest.raises(RecipeError, match=r"no setting 'gaol'. Did you mean 'goal'"):
        await here.env("Counter", gaol=3)
    with pytest.raises(RegistryError, match=r"has no 'Nobody'"):
        await here.env("Nobody")


async def test_a_step_that_hangs_meets_its_deadline_and_its_session_is_not_used_again(here):
    env = await here.env("Counter", deadlines=Deadlines(open=5, reset=5, step=0.2, close=5))
    await env.reset(TASK, seed=0)
    with pytest.raises(EnvError, match=r"Counter: step passed its deadline of 0.2 s on here"):
        await env.step("hang")
    await env.reset(TASK, seed=0)
    assert (await env.step("a")).info.state_key == "turn 1"


async def test_a_cancelled_step_is_cancelled_in_the_host(here):
    env = await here.env("Counter")
    await env.reset(TASK, seed=0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await env.step("hang")
    await asyncio.sleep(0.05)
    served = [one for client in here.host._connections for one in client._sessions.values()]
    assert served == []


async def test_a_thousand_sessions_that_wait_do_not_wait_for_each_other(here):
    first = await here.env("Counter", goal=99)
    envs = [first, *[type(first)(first._factory) for _ in range(999)]]
    await asyncio.gather(*[env.reset(TASK, seed=0) for env in envs])
    hanging = [asyncio.ensure_future(env.step("hang")) for env in envs[:300]]
    started = time.perf_counter()
    seen = await asyncio.gather(*[env.step(str(i)) for i, env in enumerate(envs[300:])])
    assert time.perf_counter() - started < 2
    assert [one.observation[0].text for one in seen] == [f"1: {i}" for i in range(700)]
    for one in hanging:
        one.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_long_queue_of_slow_steps_leaves_the_host_responsive():
    async with HostPool(deadlines=DEADLINES) as pool:
        factory = await pool.factory("host_envs:Slow", {})
        envs = [factory() for _ in range(100)]
        await asyncio.gather(*[env.reset(TASK, seed=0) for env in envs])
        steps = [asyncio.ensure_future(env.step("a")) for env in envs]
        await asyncio.sleep(0.02)
        started = time.perf_counter()
        await pool.hosts[0].connection.call("ping", 0, seconds=5)
        assert time.perf_counter() - started < 0.25
        assert not steps[-1].done()
        await asyncio.gather(*steps)


async def test_a_door_that_is_stuck_does_not_hold_its_client(here):
    env = await here.env("StubbornClose")
    await env.reset(TASK, seed=0)
    await env.close()
    assert here.connection.alive


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "announces"),
        (struct.pack(">I", 5) + b"{not}", "not JSON"),
        (encode_frame([(1, "step", 1, "a")]), "first request must be hello"),
        (encode_frame([(1, "hello", 0, PROTOCOL + 1)]), f"speaks version {PROTOCOL}"),
        (encode_frame([("one", "hello", 0, PROTOCOL)]), "a request is"),
        (encode_frame([(1,)]), "a request is"),
    ],
)
async def test_a_client_that_breaks_the_language_is_told_and_hung_up_on(here, data, words):
    env = await here.env("Echo")
    await env.reset(TASK, seed=0)
    reader, writer = await asyncio.open_unix_connection(str(here.path()))
    writer.write(data)
    ((number, kind, message),) = FrameReader().feed(await asyncio.wait_for(reader.read(), 5))
    assert (number, kind) == (0, "FrameError")
    assert words in message
    writer.close()
    assert (await env.step("still here")).observation[0].text == "still here"


@pytest.mark.parametrize(
    "request_", [("fly", 1), ("step", 1, "a"), ("open", 1), ("tasks", 1, 3), ("fork", 1, "x")]
)
async def test_a_request_that_makes_no_sense_is_answered_with_an_error(here, request_):
    with pytest.raises(EnvError):
        await here.connection.call(*request_, seconds=5)
    assert here.connection.alive


async def test_the_sessions_of_a_client_that_leaves_are_closed(here):
    other = await Connection.open(here.path(), name="other", seconds=5)
    await other.call("open", 1, "host_envs:Echo", {}, seconds=5)
    assert len(here.host._connections) == 2
    other.fail("leaving")
    await asyncio.sleep(0.05)
    assert len(here.host._connections) == 1


async def pool_of(**settings):
    pool = HostPool(HostSettings(**FAST, **settings), deadlines=DEADLINES)
    await pool.start()
    return pool


async def test_tasks_and_gold_actions_are_mirrored_through_a_process():
    async with HostPool(deadlines=DEADLINES) as pool:
        factory = await pool.factory("host_envs:Counter", {"goal": 2})
        env = factory()
        tasks = env.tasks("eval")
        assert tasks[2] == Task("eval-2", {"start": 2, "tags": ["a"]})
        assert env.gold_action(tasks[0], 1) == "gold eval-0 1"
        assert env.gold_action(tasks[0], 2) is None
        with pytest.raises(RecipeError, match="no setting 'nobody'"):
            await pool.factory("host_envs:Counter", {"nobody": 1})
        directory = pool.hosts[0].socket.parent
    assert not directory.exists()


async def test_a_killed_host_fails_its_calls_at_once_and_comes_back_and_the_other_goes_on():
    pool = await pool_of(hosts=2)
    try:
        factory = await pool.factory("host_envs:Counter", {"goal": 99})
        envs = [factory() for _ in range(8)]
        for env in envs:
            await env.reset(TASK, seed=0)
        dying = pool.hosts[0]
        hers = [env for env in envs if env._connection is dying.connection]
        others = [env for env in envs if env._connection is not dying.connection]
        assert len(hers) == len(others) == 4
        waiting = [asyncio.ensure_future(env.step("hang")) for env in hers]
        await asyncio.sleep(0.1)
        started = time.perf_counter()
        os.kill(dying.pid, signal.SIGKILL)
        lost = await asyncio.gather(*waiting, return_exceptions=True)
        assert time.perf_counter() - started < 1
        for error in lost:
            assert isinstance(error, EnvError)
            assert "host_envs:Counter: step was lost: environment host-0" in str(error)
            assert "was killed by SIGKILL" in str(error)
        played = await asyncio.gather(*[env.step("a") for env in others])
        assert {one.info.state_key for one in played} == {"turn 1"}
        await dying.ready()
        for env in hers:
            await env.reset(TASK, seed=0)
        played = await asyncio.gather(*[env.step("a") for env in hers])
        assert {one.info.state_key for one in played} == {"turn 1"}
        assert [host.deaths for host in pool.hosts] == [1, 0]
    finally:
        await pool.close()


async def test_an_env_that_ends_the_process_is_named_with_the_exit_code():
    pool = await pool_of()
    try:
        env = (await pool.factory("host_envs:Counter", {}))()
        await env.reset(TASK, seed=0)
        with pytest.raises(EnvError, match=r"Counter: step was lost: .*exited with code 7"):
            await env.step("exit")
        await env.close()
        await env.reset(TASK, seed=0)
        assert (await env.step("a")).info.state_key == "turn 1"
    finally:
        await pool.close()


async def test_an_env_that_leaks_meets_the_memory_cap():
    pool = await pool_of(memory_mb=160)
    try:
        env = (await pool.factory("host_envs:Counter", {}))()
        await env.reset(TASK, seed=0)
        with pytest.raises(EnvError, match=r"passed its memory cap of 160 MiB.*MiB resident"):
            await env.step("leak")
    finally:
        await pool.close()


async def test_an_env_that_blocks_the_host_is_shown_and_its_host_replaced():
    pool = await pool_of(ping_seconds=0.1, hang_seconds=0.3)
    try:
        env = (await pool.factory("host_envs:Counter", {}))()
        await env.reset(TASK, seed=0)
        with pytest.raises(
            EnvError, match=r"answered nothing.*step of host_envs:Counter.*in step \|"
        ):
            await env.step("block")
        await env.reset(TASK, seed=0)
        assert (await env.step("a")).info.state_key == "turn 1"
    finally:
        await pool.close()


async def test_a_host_that_cannot_start_is_given_up_with_its_last_words(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such environment\nexit 9\n")
    broken.chmod(0o755)
    with pytest.raises(EnvError, match=r"exited with code 9; its last words: no such env.*3 times"):
        await pool_of(python=str(broken), restarts=2)


async def test_an_interpreter_that_is_missing_is_said_at_once():
    with pytest.raises(EnvError, match=r"host-0 could not be started: .*'/nowhere/python'"):
        await pool_of(python="/nowhere/python", restarts=0)


async def test_sockets_of_pools_that_were_killed_are_removed_by_the_next_one(monkeypatch):
    # Not pytest's folder: the path of a Unix socket has 107 bytes.
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr("tempfile.tempdir", name)
        orphan, young = Path(name, "agentrl-hosts-old"), Path(name, "agentrl-hosts-new")
        for folder in (orphan, young):
            folder.mkdir()
            (folder / "lock").touch()
        os.utime(orphan, (0, 0))
        async with HostPool() as first:
            mine = first.hosts[0].socket.parent
            os.utime(mine, (0, 0))
            assert (mine.parent, orphan.exists(), young.exists()) == (Path(name), False, True)
            async with HostPool():
                assert mine.exists()
        assert sorted(Path(name).iterdir()) == [young]


@pytest.mark.slow
def test_nothing_is_left_when_the_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, json\n"
        "from agentrl.adapters.envhost_pool import HostPool\n"
        "async def main():\n"
        "    async with HostPool() as pool:\n"
        "        host = pool.hosts[0]\n"
        "        print(json.dumps([host.pid, str(host.socket)]), flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        pid, socket = json.loads(parent.stdout.readline())
        assert Path(socket).exists()
        os.kill(pid, 0)
        parent.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(socket).parent.exists()
