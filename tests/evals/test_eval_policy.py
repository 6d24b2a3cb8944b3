"""What a user calls a policy: folders, hub ids, servers and scripts, and every way to be wrong."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from agentrl.core.errors import CheckpointError, RecipeError, SetupError
from agentrl.engine.settings import (
    ChatSettings,
    OpenAISettings,
    ScriptedSettings,
    TransformersSettings,
    VllmSettings,
)
from agentrl.evals.policy import Policy, find_policy, policy_of

URL = "http://server.test/v1"


def serving(*names: str, status: int = 200) -> httpx.MockTransport:
    """A server that lists `names` under /v1/models and nothing elsewhere."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/models":
            return httpx.Response(404)
        return httpx.Response(status, json={"data": [{"id": name} for name in names]})

    return httpx.MockTransport(answer)


def test_a_policy_is_found_in_its_run(tmp_path: Path) -> None:
    assert find_policy("Qwen/Qwen3-1.7B") == "Qwen/Qwen3-1.7B"
    with pytest.raises(CheckpointError, match="holds no policy"):
        policy_of(str(tmp_path))
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "config.json").write_text("{}")
    inside = str(tmp_path / "policy")
    assert policy_of(str(tmp_path)) == Policy(VllmSettings(), inside)
    assert policy_of(inside, engine="transformers") == Policy(TransformersSettings(), inside)


def test_a_hub_id_and_a_built_in_name_are_loaded_by_vllm() -> None:
    assert policy_of("Qwen/Qwen3-1.7B") == Policy(VllmSettings(), "Qwen/Qwen3-1.7B")
    assert Path(policy_of("tiny/search").model, "config.json").is_file()


def test_a_script_needs_no_model() -> None:
    assert policy_of("scripted:oracle") == Policy(ScriptedSettings(script="oracle"), "")
    assert policy_of("scripted:spoiled_oracle", engine="scripted").engine.type == "scripted"


def test_a_server_of_one_model_needs_no_name_and_one_of_several_does() -> None:
    one = policy_of(URL, transport=serving("only"))
    assert one == Policy(ChatSettings(base_url=URL, model="only"), "")
    several = serving("a", "b")
    assert policy_of(URL, model="b", transport=several).engine.model == "b"
    with pytest.raises(RecipeError, match=r"serves 2 models: name one with --model \(a, b\)"):
        policy_of(URL, transport=several)
    with pytest.raises(RecipeError, match=r"serves no model 'bb'. Did you mean 'b'.*: a, b"):
        policy_of(URL, model="bb", transport=several)
    many = serving(*(f"m{index:02d}" for index in range(30)))
    with pytest.raises(RecipeError, match="m09 and 20 more"):
        policy_of(URL, transport=many)
    with pytest.raises(RecipeError, match=r"serves 0 models.*\(none\)"):
        policy_of(URL, transport=serving())


def test_a_tokenizer_asks_for_exact_completions() -> None:
    found = policy_of(URL, tokenizer="some/model", transport=serving("only"))
    assert found == Policy(OpenAISettings(base_url=URL, model="only"), "some/model")
    with pytest.raises(RecipeError, match="--tokenizer must name"):
        policy_of(URL, engine="openai", transport=serving("only"))
    with pytest.raises(RecipeError, match="leave --tokenizer out"):
        policy_of(URL, engine="chat", tokenizer="x", transport=serving("only"))


def test_an_address_without_its_version_is_told_with_it() -> None:
    with pytest.raises(RecipeError, match=r"name the policy http://server.test/v1"):
        policy_of("http://server.test/", transport=serving("only"))


def test_a_server_that_lists_nothing_is_believed_where_the_model_is_named() -> None:
    silent = httpx.MockTransport(lambda request: httpx.Response(404))
    assert policy_of(URL, model="m", transport=silent).engine.model == "m"
    with pytest.raises(RecipeError, match="does not say which models it serves"):
        policy_of(URL, transport=silent)


def test_a_server_that_is_not_there_or_wants_a_key_says_so(monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(SetupError, match=r"no server answers.*connection refused.*is it started"):
        policy_of(URL, transport=httpx.MockTransport(refuse))
    with pytest.raises(SetupError, match=r"HTTP 401.*OPENAI_API_KEY, which is not set"):
        policy_of(URL, transport=serving(status=401))
    assert policy_of(URL, model="m", transport=serving(status=401)).engine.model == "m"
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>hello"))
    with pytest.raises(SetupError, match="answered no list of models: <html>hello"):
        policy_of(URL, transport=page)


def test_the_key_goes_with_the_question_for_models(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"data": [{"id": "only"}]})

    policy_of(URL, transport=httpx.MockTransport(answer))
    assert seen == ["Bearer secret"]


@pytest.mark.parametrize(
    ("named", "options", "said"),
    [
        ("scripted:oracel", {}, "no script is named 'oracel'. Did you mean 'oracle'"),
        ("scripted:random", {}, "Known: scripted:oracle, scripted:spoiled_oracle"),
        ("scripted:oracle", {"model": "m"}, "a script needs no model"),
        ("ftp://host/v1", {}, "starts with http:// or https://"),
        ("some/model", {"model": "m"}, "--model m is for servers"),
        ("some/model", {"tokenizer": "t"}, "--tokenizer t is for servers"),
        ("some/model", {"engine": "vlm"}, "Did you mean 'vllm'"),
        ("./nowhere", {}, "no folder './nowhere'"),
        ("tiny/serch", {}, "Did you mean 'tiny/search'"),
        (URL, {"engine": "vllm", "model": "only"}, "not for a server"),
        (f"{URL}/chat/completions/", {}, f"is a page of a server: name it '{URL}'"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_would(named, options, said) -> None:
    with pytest.raises(RecipeError) as caught:
        policy_of(named, **options, transport=serving("only"))
    assert said in str(caught.value)
