"""What a result is compared with: OSWorld's metrics by name, as pure functions to [0, 1].

A metric gets the result (None where there was nothing to get), then, where the task expects
something, that, then the task's options as keyword arguments. Written anew after the behaviour of
OSWorld (Apache-2.0, arXiv:2404.07972).
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Metric: TypeAlias = Callable[..., float]


def exact_match(result: object, rules: Mapping[str, Any]) -> float:
    """1 where the result equals `expected`."""
    return float(result == rules["expected"])


def match_in_list(result: object, rules: Mapping[str, Any]) -> float:
    """1 where the result is one of `expected`."""
    return float(result in rules["expected"])


def is_in_list(result: object, rules: Mapping[str, Any]) -> float:
    """1 where `expected` is among the results."""
    return float(isinstance(result, (list, tuple, str)) and rules["expected"] in result)


def check_include_exclude(result: object, rules: Mapping[str, Any]) -> float:
    """1 where all of `include` and none of `exclude` stand in the text."""
    text = _text(result)
    if text is None:
        return 0.0
    return float(
        all(one in text for one in rules.get("include", ()))
        and not any(one in text for one in rules.get("exclude", ()))
    )


def check_list(result: object, rules: Mapping[str, Any]) -> float:
    """1 where each pattern of `expect` is found in a line of a file, and none of `unexpect`."""
    text = _text(result)
    if text is None:
        return 0.0
    lines = text.splitlines()
    expected = all(any(re.search(one, line) for line in lines) for one in rules.get("expect", ()))
    spoilt = any(re.search(one, line) for line in lines for one in rules.get("unexpect", ()))
    return float(expected and not spoilt)


def check_direct_json_object(result: object, rules: Mapping[str, Any]) -> float:
    """1 where an object has the expected value at each key; with `expect_in_result`, holds it."""
    if not isinstance(result, Mapping):
        return 0.0
    inside = rules.get("expect_in_result", False)
    for key, wanted in rules["expected"].items():
        found = result.get(key)
        ways = wanted if isinstance(wanted, list) else [wanted]
        if inside and not (found and any(str(way) in found for way in ways)):
            return 0.0
        if not inside and found != wanted and (not isinstance(wanted, list) or found not in ways):
            return 0.0
    return 1.0


def check_json(result: object, rules: Mapping[str, Any]) -> float:
    """1 where a JSON file keeps every rule of `expect` and none of `unexpect`.

    A rule has a path `key`, a `method` (eq, ne, lt, le, gt, ge, in, not_in, re.match,
    re.fullmatch, re.search) and a reference `ref`.
    """
    data = _json(result)
    if data is None:
        return 0.0
    expected = all(_keeps(data, one) for one in rules.get("expect", ()))
    return float(expected and not any(_keeps(data, one) for one in rules.get("unexpect", ())))


def _keeps(data: Any, rule: Mapping[str, Any]) -> bool:
    for key in rule["key"]:
        try:
            data = data[key]
        except (LookupError, TypeError):
            return False
    method, ref = rule["method"], rule["ref"]
    if method.startswith("re."):
        found: object = getattr(re, method.removeprefix("re."))(ref, str(data))
        return found is not None
    try:
        return bool(_COMPARISONS[method](data, ref))
    except TypeError:
        return False


_COMPARISONS: Mapping[str, Callable[[Any, Any], object]] = {
    "eq": lambda data, ref: data == ref,
    "ne": lambda data, ref: data != ref,
    "lt": lambda data, ref: data < ref,
    "le": lambda data, ref: data <= ref,
    "gt": lambda data, ref: data > ref,
    "ge": lambda data, ref: data >= ref,
    "in": lambda data, ref: data in ref,
    "not_in": lambda data, ref: data not in ref,
}


def check_json_settings(result: object, rules: Mapping[str, Any]) -> float:
    """1 where a JSON file has the expected value at each key."""
    data = _json(result)
    wanted = rules["expected"]
    return float(isinstance(data, dict) and all(data.get(key) == wanted[key] for key in wanted))


def check_json_keybindings(result: object, rules: Mapping[str, Any]) -> float:
    """1 where a JSON file is a list that holds the expected object."""
    data = _json(result)
    return float(isinstance(data, list) and rules["expected"] in data)


def check_csv(result: object, rules: Mapping[str, Any]) -> float:
    """1 where a CSV file has a row with each object of `expect`, and none of `unexpect`."""
    text = _text(result)
    if text is None:
        return 0.0
    rows = list(csv.DictReader(io.StringIO(text)))

    def has(wanted: Mapping[str, str]) -> bool:
        return any(all(row.get(key) == wanted[key] for key in wanted) for row in rows)

    expected = all(map(has, rules.get("expect", ())))
    return float(expected and not any(map(has, rules.get("unexpect", ()))))


def compare_text_file(
    result: object, expected: object, *, ignore_blanks: bool = False, ignore_case: bool = False
) -> float:
    """1 where two text files are equal, up to blanks and case if asked."""
    texts = [_text(result), _text(expected)]
    if None in texts:
        return 0.0
    if ignore_blanks:
        texts = [re.sub(r"\s+", " ", str(one)).strip() for one in texts]
    if ignore_case:
        texts = [str(one).lower() for one in texts]
    return float(texts[0] == texts[1])


def compare_config(result: object, rules: Mapping[str, Any]) -> float:
    """1 where a file's text is `expected`."""
    return float(_text(result) == rules["expected"])


def file_contains(result: object, rules: Mapping[str, Any]) -> float:
    """1 where a file holds every text of `expected`."""
    text = _text(result)
    return float(text is not None and all(one in text for one in rules["expected"]))


def file_equals(result: object, rules: Mapping[str, Any]) -> float:
    """1 where a file's text is `text`, up to one line break at its end (ours)."""
    text = _text(result)
    return float(text is not None and text.removesuffix("\n") == rules["text"].removesuffix("\n"))


def no_file(result: object) -> float:
    """1 where there is no such file (ours)."""
    return float(result is None)


def diff_text_file(result: object, expected: object) -> float:
    """How alike the lines of two files are, from 0 to 1."""
    one, other = _text(result), _text(expected)
    if one is None or other is None:
        return 0.0
    return difflib.SequenceMatcher(a=one.splitlines(), b=other.splitlines()).ratio()


def literal_match(
    result: object, expected: object, *, type: str = "str", ignore_case: bool = False
) -> float:
    """1 where two texts (or, with `type` list, lists of texts) are equal."""
    if type == "list":
        if not isinstance(result, list) or not isinstance(expected, list):
            return 0.0
        pair = [[str(one) for one in side] for side in (result, expected)]
        if ignore_case:
            pair = [[one.lower() for one in side] for side in pair]
        return float(pair[0] == pair[1])
    left, right = str(result), str(expected)
    return float(left.lower() == right.lower() if ignore_case else left == right)


def is_utc_0(result: object) -> float:
    """1 where `timedatectl` tells a time zone at UTC."""
    found = re.search(r"Time zone:.*", _text(result) or "")
    return float(found is not None and found[0].rstrip().endswith("+0000)"))


def is_extension_installed(result: object, rules: Mapping[str, Any]) -> float:
    """1 where the text has `expected` (`contain`) or lacks it (`not_contain`)."""
    if result is None:
        return 0.0
    inside = rules["expected"] in str(result)
    return float(inside if rules["type"] == "contain" else not inside)


def check_gnome_favorite_apps(result: object, rules: Mapping[str, Any]) -> float:
    """1 where a printed list of names is the expected one."""
    return float(re.findall(r"'([^']*)'", str(result or "")) == list(rules["expected"]))


def is_expected_url_pattern_match(result: object, rules: Mapping[str, Any]) -> float:
    """1 where every pattern of `expected` is found in the address."""
    url = result.get("url") if isinstance(result, Mapping) else result
    return float(
        isinstance(url, str) and all(re.search(one, url) is not None for one in rules["expected"])
    )


def is_expected_active_tab(result: object, rules: Mapping[str, Any]) -> float:
    """1 where the address is `url`, up to a slash at its end."""
    url = result.get("url") if isinstance(result, Mapping) else result
    return float(isinstance(url, str) and _address(url) == _address(rules["url"]))


def is_expected_bookmarks(result: object, rules: Mapping[str, Any]) -> float:
    """1 where the bookmark bar holds exactly the folders `names`, or the addresses `urls`."""
    if not isinstance(result, Mapping):
        return 0.0
    children = result.get("bookmark_bar", {}).get("children", [])
    if rules["type"] == "bookmark_bar_folders_names":
        found = {one["name"] for one in children if one["type"] == "folder"}
        return float(found == set(rules["names"]))
    if rules["type"] == "bookmark_bar_websites_urls":
        urls = {_address(one["url"]) for one in children if one["type"] == "url"}
        return float(urls == set(map(_address, rules["urls"])))
    raise ValueError(f"unknown kind of bookmark rule {rules['type']!r}")


def check_elements(result: object, rules: Mapping[str, Any]) -> float:
    """1 where elements of a tree match every object of `expect`, and of `unexpect` none (ours).

    An object names some of role, name and text; a text matches where it is found as a pattern.
    """
    if not isinstance(result, Sequence):
        return 0.0

    def has(wanted: Mapping[str, str]) -> bool:
        return any(
            all(node[key] == wanted[key] for key in ("role", "name") if key in wanted)
            and re.search(wanted.get("text", ""), node["text"]) is not None
            for node in result
        )

    expected = all(map(has, rules.get("expect", ())))
    return float(expected and not any(map(has, rules.get("unexpect", ()))))


def _text(result: object) -> str | None:
    if isinstance(result, bytes):
        return result.decode("utf-8", "replace")
    return result if isinstance(result, str) else None


def _json(result: object) -> Any:
    text = _text(result)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _address(url: str) -> tuple[str, str, str]:
    parts = urlsplit(url)
    return parts.netloc.removeprefix("www."), parts.path.rstrip("/"), parts.query


METRICS: Mapping[str, Metric] = {
    one.__name__: one
    for one in (
        check_csv,
        check_direct_json_object,
        check_elements,
        check_gnome_favorite_apps,
        check_include_exclude,
        check_json,
        check_json_keybindings,
        check_json_settings,
        check_list,
        compare_config,
        compare_text_file,
        diff_text_file,
        exact_match,
        file_contains,
        file_equals,
        is_expected_active_tab,
        is_expected_bookmarks,
        is_expected_url_pattern_match,
        is_extension_installed,
        is_in_list,
        is_utc_0,
        literal_match,
        match_in_list,
        no_file,
    )
}
"""Metrics by OSWorld's names, and three of ours."""
