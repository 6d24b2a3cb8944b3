"""The Docker daemon seen from a sandbox: absent, hanging, without the image; whose a container is.

A little server stands in for the daemon; no real one is needed or touched.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from agentrl.core.errors import EnvError, SetupError
from agentrl.sandbox import DockerSettings, Limits
from agentrl.sandbox.docker import DockerSandbox
from agentrl.sandbox.docker_daemon import Daemon, Shape, is_orphan, owner

VERSION = (200, {"ApiVersion": "1.41", "Version": "20.10", "MinAPIVersion": "1.12"})
MISSING = (404, {"message": "No such image: some/image:tag"})


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def daemon(tmp_path, answers, *, hang=()):
    """A server that answers paths that hold a key of `answers`, and none that holds a `hang`."""
    asked, over = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            asked.append(f"{self.command} {self.path}")
            if any(one in self.path for one in hang):
                over.wait(30)
                return
            status, body = next(
                (answers[key] for key in answers if key in self.path), (500, {"message": "what?"})
            )
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, *args):
            return

        def address_string(self):
            return "unix"

    path = str(tmp_path / "docker.sock")
    with _Server(path, Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"unix://{path}", asked
        over.set()
        server.shutdown()


def settings(host, **more):
    return DockerSettings(
        **{"host": host, "image": "some/image:tag", "daemon_seconds": 3.0, **more}
    )


async def prepared(host, **more):
    await Daemon(settings(host, **more)).prepare()


async def test_no_daemon_is_a_setup_error_that_names_the_ways_out(tmp_path):
    with pytest.raises(SetupError, match=r"systemctl start docker.*usermod.*bubblewrap"):
        await DockerSandbox(settings(f"unix://{tmp_path}/none.sock")).run_python("1")


async def test_a_missing_package_is_a_setup_error_that_names_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(SetupError, match=r'pip install "agentrl\[docker\]"'):
        await prepared("")


async def test_a_daemon_that_hangs_is_an_env_error_within_its_deadline(tmp_path):
    with daemon(tmp_path, {}, hang=["version"]) as (host, _):
        started = time.perf_counter()
        with pytest.raises(EnvError, match="does not answer"):
            await prepared(host, daemon_seconds=0.3)
    assert time.perf_counter() - started < 2.0


async def test_a_daemon_that_hangs_later_is_an_env_error_that_says_at_what(tmp_path):
    with daemon(tmp_path, {"version": VERSION}, hang=["images"]) as (host, _):
        started = time.perf_counter()
        with pytest.raises(EnvError, match="look for the image"):
            await prepared(host, daemon_seconds=0.3)
    assert time.perf_counter() - started < 2.0


async def test_a_daemon_that_is_gone_later_is_an_env_error(tmp_path):
    one = Daemon(settings(""))
    with daemon(tmp_path, {"version": VERSION}) as (host, _):
        one = Daemon(settings(host))
        one._client = one._connect()
    with pytest.raises(EnvError, match="remove orphans"):
        await one.sweep()


async def test_a_missing_image_that_may_not_be_pulled_names_the_command(tmp_path):
    with (
        daemon(tmp_path, {"version": VERSION, "images": MISSING}) as (host, asked),
        pytest.raises(SetupError, match="docker pull some/image:tag"),
    ):
        await prepared(host, pull="never")
    assert not any("create" in one for one in asked)


async def test_an_image_that_cannot_be_pulled_names_the_command(tmp_path):
    answers = {
        "version": VERSION,
        "images/create": (500, {"message": "dial tcp: lookup registry: no such host"}),
        "images": MISSING,
    }
    with (
        daemon(tmp_path, answers) as (host, asked),
        pytest.raises(SetupError, match=r"no such host.*docker pull some/image:tag"),
    ):
        await prepared(host)
    assert any("create?tag=tag&fromImage=some%2Fimage" in one for one in asked)


@pytest.mark.parametrize(("pull", "pulls"), [("missing", 0), ("always", 1), ("never", 0)])
async def test_the_pull_policy_says_when_an_image_that_is_there_is_pulled(tmp_path, pull, pulls):
    answers = {
        "version": VERSION,
        "images/create": (200, {}),
        "images": (200, {"Config": {}}),
        "containers": (200, []),
    }
    with daemon(tmp_path, answers) as (host, asked):
        await prepared(host, pull=pull)
    assert sum("images/create" in one for one in asked) == pulls


async def test_an_image_with_volumes_is_refused(tmp_path):
    image = (200, {"Config": {"Volumes": {"/data": {}}}})
    with (
        daemon(tmp_path, {"version": VERSION, "images": image}) as (host, _),
        pytest.raises(SetupError, match=r"volumes \(/data\)"),
    ):
        await prepared(host)


async def test_only_containers_of_dead_owners_are_swept(tmp_path):
    mine = owner()
    boot, namespace, pid, _ = mine.split()
    labels = {
        "a": f"{mine} x",
        "b": f"{boot} {namespace} {pid} 1 x",
        "c": f"{boot} pid:[1] {pid} 1 x",
        "d": "somebody else's",
    }
    listed = [{"Id": id_, "Labels": {"agentrl.owner": label}} for id_, label in labels.items()]
    answers = {
        "version": VERSION,
        "images": (200, {"Config": {}}),
        "containers/json": (200, listed),
        "containers/": (200, {}),
    }
    with daemon(tmp_path, answers) as (host, asked):
        await prepared(host)
    removed = [one.split("?")[0].rpartition("/")[2] for one in asked if one.startswith("DELETE")]
    assert removed == ["b"]


def test_an_owner_is_gone_when_its_pid_is_free_or_another_process_has_it():
    boot, namespace, pid, started = owner().split()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert not is_orphan(f"{boot} {namespace} {pid} {started} x")
    assert is_orphan(f"{boot} {namespace} {pid} {int(started) + 1} x")
    assert is_orphan(f"{boot} {namespace} {child} {started} x")
    # Owners of another machine, an earlier boot or another namespace cannot be judged from here.
    assert not is_orphan(f"other {namespace} {child} {started} x")
    assert not is_orphan(f"{boot} pid:[1] {child} {started} x")


def test_the_shape_of_a_container_is_what_it_keeps_for_life():
    limits = Limits(memory_mb=64, processes=8, disk_mb=4, wall_seconds=1.0, open_files=99)
    assert Shape.of(limits) == (64, 8, 4)


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".", "a/", "a\0b"])
async def test_a_path_that_leaves_the_working_folder_is_refused_before_anything_is_asked(path):
    from agentrl.sandbox.docker import _checked

    with pytest.raises(FileNotFoundError, match="no path below the working folder"):
        _checked(path)
