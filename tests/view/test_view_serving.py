"""The server answers this machine and who knows the token, with the data of one thing at a time."""

from __future__ import annotations

import json

import pytest
from view_folders import sample, small_run, write_evaluation

from agentrl.core.errors import DataError
from agentrl.view.read import open_source

starlette = pytest.importorskip("starlette", reason='pip install "agentrl[serve]"')
from starlette.testclient import TestClient  # noqa: E402

from agentrl.view.server import Viewer  # noqa: E402


def serving(*folders, local=True):
    viewer = Viewer([open_source(folder) for folder in folders], token="secret")
    return viewer, TestClient(viewer.app(local=local), base_url="http://127.0.0.1")


def test_the_page_comes_with_its_policy_and_without_data(tmp_path):
    _, client = serving(small_run(tmp_path / "run"))
    answer = client.get("/secret/")
    assert answer.status_code == 200 and 'data-served="1"' in answer.text
    assert "octet-stream" not in answer.text
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/other/", "/other/data/0/index", "/secret"])
def test_without_the_token_there_is_nothing(tmp_path, path):
    _, client = serving(small_run(tmp_path / "run"))
    assert client.get(path, follow_redirects=False).status_code in (307, 404)
    assert "t0" not in client.get("/other/data/0/index").text


def test_a_request_under_another_name_is_refused_unless_asked_for(tmp_path):
    folder = small_run(tmp_path / "run")
    _, client = serving(folder)
    assert client.get("/secret/", headers={"host": "evil.example"}).status_code == 400
    assert client.get("/secret/", headers={"host": "localhost:8000"}).status_code == 200
    _, client = serving(folder, local=False)
    assert client.get("/secret/", headers={"host": "machine.example"}).status_code == 200


def test_each_thing_is_fetched_alone(tmp_path):
    _, client = serving(small_run(tmp_path / "run"))
    get = lambda name: client.get(f"/secret/data/0/{name}")  # noqa: E731
    index = get("index").json()
    assert len(index["rows"]["group"]) == 12
    assert len(get("turns/0").json()["groups"]) == 3
    assert len(get("tokens/0").json()["groups"][0]["trees"]) == 2
    assert get("metrics").json()["iteration"] == list(range(1, 9))
    assert get("pieces").json()["0"]
    for name in ("turns/1", "turns/x", "turns/-1", "nothing", "image/../recipe.yaml", "image/x"):
        assert get(name).status_code == 404, name
    assert client.get("/secret/data/7/index").status_code == 404


def test_a_file_that_went_after_the_start_is_404_and_noted(tmp_path):
    folder = small_run(tmp_path / "run")
    _, client = serving(folder)
    (folder / "trees" / "iteration-000001.parquet").unlink()
    assert client.get("/secret/data/0/turns/0").status_code == 404
    assert client.get("/secret/data/0/index").json()["notes"][0]["file"].startswith("trees/")


def test_odd_text_and_pictures_survive_the_way(tmp_path):
    odd, hash_ = "\ud800 \u202e</script>", "d" * 64
    folder = write_evaluation(tmp_path / "ev", [sample("a", prompt=odd)])
    (folder / "images").mkdir()
    (folder / "images" / f"{hash_}.png").write_bytes(b"\x89PNG1234")
    _, client = serving(folder)
    found = json.loads(client.get("/secret/data/0/turns/0").content)
    assert found["groups"][0][0]["prompt"] == odd
    assert client.get(f"/secret/data/0/image/{hash_}").content == b"\x89PNG1234"
    assert client.get("/secret/data/0/tokens/0").status_code == 404, "the policy speaks text"


def test_a_token_is_made_where_none_is_given(tmp_path):
    source = open_source(small_run(tmp_path / "run"))
    first, second = Viewer([source]), Viewer([source])
    assert first.token != second.token and len(first.token) >= 16


def test_no_source_is_an_error():
    with pytest.raises(DataError, match="nothing to show"):
        Viewer([])
