"""Short-answer graders on values worked out by hand."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.graders.qa import cover_match, exact_match, normalize_answer, token_f1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel\tTower!", "eiffel tower"),
        ("U.S.A.", "usa"),
        ("an apple a day", "apple day"),
        ("theatre and another", "theatre and another"),
        ("A-Team", "ateam"),
        ("the-end", "theend"),
        ("3.5", "35"),
        ("C++", "c"),
        ("C#", "c"),
        ("Vitamin A", "vitamin"),
        ("The The", ""),
        ("Beyoncé’s", "beyoncé’s"),
        ("1939–1945", "1939–1945"),
        ("  ", ""),
    ],
)
def test_normalisation_follows_squad_with_its_known_faults(text: str, expected: str) -> None:
    assert normalize_answer(text) == expected


def test_articles_go_after_punctuation_so_a_hyphened_article_stays() -> None:
    # Punctuation first: "a-b" becomes "ab", in which there is no article any more.
    assert normalize_answer("a-b a_b a b") == "ab ab b"


def test_exact_match_takes_the_best_alias() -> None:
    assert exact_match("the Lake Superior.", ["Superior", "Lake Superior"]) == 1.0
    assert exact_match("Lake Huron", ["Superior", "Lake Superior"]) == 0.0
    assert exact_match("New York", ["New York City"]) == 0.0


def test_token_f1_by_hand() -> None:
    # tokens {barack, obama} against {barack, hussein, obama}: precision 1, recall 2/3.
    assert token_f1("Barack Obama", ["Barack Hussein Obama"]) == pytest.approx(0.8)
    # {in, paris, france} against {paris}: precision 1/3, recall 1.
    assert token_f1("in Paris, France", ["Paris"]) == pytest.approx(0.5)
    # A multiset: {yes, yes, no} against {yes, no, no} shares yes and no.
    assert token_f1("yes yes no", ["yes no no"]) == pytest.approx(2 / 3)
    assert token_f1("in Paris, France", ["Paris", "Paris France"]) == pytest.approx(0.8)
    assert token_f1("London", ["Paris"]) == 0.0


def test_an_empty_side_scores_only_against_an_empty_side() -> None:
    assert token_f1("", ["Paris"]) == 0.0
    assert token_f1("Paris", ["the"]) == 0.0
    assert token_f1("a", ["the"]) == exact_match("a", ["the"]) == 1.0


def test_hotpot_rule_gives_nothing_to_a_verdict_with_words_around_it() -> None:
    assert token_f1("yes it is", ["yes"]) == pytest.approx(0.5)
    assert token_f1("yes it is", ["yes"], verdicts=True) == 0.0
    assert token_f1("yes", ["yes it is"]) == pytest.approx(0.5)
    assert token_f1("yes", ["yes it is"], verdicts=True) == 0.0
    assert token_f1("Yes.", ["yes"], verdicts=True) == 1.0
    assert token_f1("no", ["yes", "no"], verdicts=True) == 1.0
    assert token_f1("red house", ["house"], verdicts=True) == pytest.approx(2 / 3)


def test_cover_match_finds_the_answer_inside() -> None:
    assert cover_match("It was the Lake Superior, I think", ["lake superior"]) == 1.0
    assert cover_match("Superior", ["Lake Superior"]) == 0.0
    # A substring of characters, not of words.
    assert cover_match("a Romanian", ["Roman"]) == 1.0
    assert cover_match("anything", ["The The"]) == 0.0


@pytest.mark.parametrize("grade", [exact_match, token_f1, cover_match])
def test_no_reference_answers_is_an_error_and_not_a_zero(grade) -> None:
    with pytest.raises(DataError, match="against no reference answers"):
        grade("x", [])
    with pytest.raises(DataError, match="the one string 'Paris'") as caught:
        grade("x", "Paris")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


words = st.lists(st.sampled_from(["the", "a", "lake", "Superior", "yes", "no", "C++", "."]))


@given(words, st.lists(words, min_size=1, max_size=3))
def test_exact_match_implies_full_f1_and_cover(found, golds) -> None:
    prediction, answers = " ".join(found), [" ".join(gold) for gold in golds]
    for verdicts in (False, True):
        f1 = token_f1(prediction, answers, verdicts=verdicts)
        assert 0.0 <= f1 <= 1.0
        if exact_match(prediction, answers):
            assert f1 == cover_match(prediction, answers) == 1.0


@given(words, words)
def test_f1_equals_a_slow_count_of_shared_tokens(found, gold) -> None:
    left, right = (normalize_answer(" ".join(text)).split() for text in (found, gold))
    pool, shared = list(right), 0
    for token in left:
        if token in pool:
            pool.remove(token)
            shared += 1
    expected = 2 * shared / (len(left) + len(right)) if left + right else 1.0
    assert token_f1(" ".join(found), [" ".join(gold)]) == pytest.approx(expected)
