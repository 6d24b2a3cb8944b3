"""The file holds everything as data that cannot run, and tokens read as their tokenizer says."""

from __future__ import annotations

import base64
import json
import re
import zlib
from importlib.resources import files

import pytest
from view_folders import sample, small_run, write_evaluation

from agentrl.core.errors import DataError
from agentrl.view.page import SCRIPTS, compact, page, title_of, write_page
from agentrl.view.pieces import Vocabulary, open_vocabulary
from agentrl.view.read import open_source

BLOCK = re.compile(r'<script type="application/octet-stream" id="([^"]+)">([^<]*)</script>')


def blocks(path):
    """Everything that a file holds, by name."""
    text = path.read_text()
    return {name: zlib.decompress(base64.b64decode(blob)) for name, blob in BLOCK.findall(text)}


def written(tmp_path, *folders, **settings):
    path = tmp_path / "page.html"
    found = write_page(path, [open_source(folder) for folder in folders], **settings)
    return path, found


def test_a_file_holds_the_index_first_and_every_chunk(tmp_path):
    path, found = written(tmp_path, small_run(tmp_path / "run"))
    held = blocks(path)
    assert list(held) == ["0/index", "0/turns/0", "0/tokens/0", "0/metrics", "0/pieces"]
    text = path.read_text()
    assert text.index('id="0/index"') < text.index('"use strict"') < text.index('id="0/turns/0"')
    assert found.trajectories == 12 and found.bytes == path.stat().st_size and found.notes == 0
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_two_sources_lie_side_by_side(tmp_path):
    path, _ = written(tmp_path, small_run(tmp_path / "one"), small_run(tmp_path / "two"))
    assert {name[0] for name in blocks(path)} == {"0", "1"}
    assert 'data-sources="2"' in path.read_text() and "<title>one and two" in path.read_text()


def test_text_of_any_kind_is_only_ever_base64(tmp_path):
    nasty = "</script><script>window.hurt=1</script>\ud800\u202e\u2028"
    folder = write_evaluation(
        tmp_path / "ev", [sample(nasty, prompt=nasty, turns=[(nasty, nasty)])]
    )
    path, _ = written(tmp_path, folder)
    assert "window.hurt" not in path.read_text()
    (trees,) = json.loads(blocks(path)["0/turns/0"])["groups"]
    assert trees[0]["prompt"] == nasty and trees[0]["observation"] == [nasty]
    assert json.loads(blocks(path)["0/index"])["tasks"] == [nasty]


def test_a_title_is_escaped():
    made = page(title="<img src=x onerror=alert(1)>", sources=1, served=False)
    assert "<img" not in made.head and "&lt;img" in made.head


def test_the_policy_of_a_file_pins_its_program_and_forbids_every_connection():
    made = page(title="x", sources=1, served=False)
    assert "default-src 'none'" in made.policy and "connect-src 'none'" in made.policy
    assert "unsafe" not in made.policy and made.policy.count("sha256-") == 2
    assert "connect-src 'self'" in page(title="x", sources=1, served=True).policy


def test_the_program_makes_no_markup_of_text_and_loads_nothing():
    static = files("agentrl.view") / "static"
    assert {one.name for one in static.iterdir()} == {*SCRIPTS, "page.html", "style.css"}
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser"
        r"|\beval\s*\(|new Function|setTimeout\(\s*[\"'`]|\bsrcdoc\b|https?://(?!www\.w3\.org/2000/svg)"
        r"|@import|url\("
    )
    for one in static.iterdir():
        assert not forbidden.search(one.read_text()), one.name
        assert len(one.read_text().splitlines()) <= 500, one.name
    assert not re.search(r"\son\w+=", (static / "page.html").read_text())


def test_json_is_of_ascii_and_without_numbers_that_are_none():
    assert compact({"a": "é\ud800"}) == '{"a":"\\u00e9\\ud800"}'
    with pytest.raises(ValueError, match="JSON"):
        compact(float("nan"))


def test_pictures_come_along_by_their_hash_and_programs_do_not(tmp_path):
    picture = b"\x89PNG\r\n\x1a\n" + bytes(20)
    one, two = "a" * 64, "b" * 64
    seen = f"<|image {one}|> and <|image {two}|>"
    folder = write_evaluation(tmp_path / "ev", [sample("a", turns=[("look", seen)])])
    (folder / "images").mkdir()
    (folder / "images" / f"{one}.png").write_bytes(picture)
    (folder / "images" / f"{two}.svg").write_bytes(b"<svg onload='alert(1)'/>")
    (folder / "images" / f"{'c' * 64}.png").write_bytes(picture)
    path, _ = written(tmp_path, folder)
    held = {name: raw for name, raw in blocks(path).items() if "image" in name}
    assert held == {f"0/image/{one}": picture}


def test_a_policy_that_speaks_text_has_no_tokens_in_its_page(tmp_path):
    path, _ = written(tmp_path, write_evaluation(tmp_path / "ev", [sample("a")]))
    held = blocks(path)
    assert "0/tokens/0" not in held and "0/pieces" not in held
    (trees,) = json.loads(held["0/turns/0"])["groups"]
    assert trees[0]["n"] == [0] and trees[0]["promptTokens"] == 0


def test_a_run_without_its_tokenizer_says_so_and_shows_ids(tmp_path):
    folder = small_run(tmp_path / "run")
    text = (folder / "recipe.yaml").read_text().replace("tiny/search", "nobody/nothing")
    (folder / "recipe.yaml").write_text(text)
    path, found = written(tmp_path, folder)
    held = blocks(path)
    assert "0/pieces" not in held and found.notes == 1
    (note,) = json.loads(held["0/index"])["notes"]
    assert note["file"] == "tokenizer" and "nobody/nothing" in note["message"]
    again, found = written(tmp_path, folder, tokenizer="tiny/search")
    assert found.notes == 0 and "0/pieces" in blocks(again)


def test_nothing_to_show_is_an_error():
    with pytest.raises(DataError, match="nothing to show"):
        title_of([])


# -- tokens -------------------------------------------------------------------------------------


def byte_level():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # The bytes E2 82 AC of the euro sign, and a word after a space.
    tokens = ["a", "âĤ", "¬", "Ġword", "Ċ"]
    made = Tokenizer(models.BPE({token: id_ for id_, token in enumerate(tokens)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>"])
    return made


def test_tokens_of_bytes_are_text_where_they_can_be_and_bytes_where_not():
    vocabulary = Vocabulary(byte_level())
    assert vocabulary.pieces(range(7)) == {
        "0": "a",
        "1": [0xE2, 0x82],
        "2": [0xAC],
        "3": " word",
        "4": "\n",
        "5": "<|end|>",
        "6": "<6?>",
    }
    assert vocabulary.texts([[0, 1, 2, 3, 5]]) == ["a€ word<|end|>"]
    assert vocabulary.special == ["<|end|>"]


def test_tokens_of_sentence_pieces_keep_their_space():
    from tokenizers import Tokenizer, decoders, models

    tokens = ["<unk>", "▁a", "▁word", "s", "<0x0A>", "<0xE2>"]
    made = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [], byte_fallback=True))
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    vocabulary = Vocabulary(made)
    assert [vocabulary.piece(id_) for id_ in (2, 3, 4, 5)] == [" word", "s", "\n", [0xE2]]


def test_pieces_joined_are_the_text_of_the_small_policy():
    vocabulary = open_vocabulary("tiny/search")
    ids = vocabulary._tokenizer.encode("What is the capital of Österreich? 東京").ids
    raw = b"".join(
        piece.encode() if isinstance(piece, str) else bytes(piece)
        for piece in (vocabulary.piece(id_) for id_ in ids)
    )
    assert raw.decode() == vocabulary.texts([ids])[0]


def test_no_tokenizer_is_none(tmp_path):
    assert open_vocabulary("") is None and open_vocabulary("nobody/nothing") is None
    (tmp_path / "tokenizer.json").write_text("not one")
    assert open_vocabulary(str(tmp_path)) is None
