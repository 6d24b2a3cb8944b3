"""Problems of our own in the plain layout: functions and programs, each with a solution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from agentrl.core.datasets import Row

from .problems import Problem
from .rows import plain_problem


def _function(
    entry: str, text: str, visible: Sequence[object], hidden: Sequence[object], solution: str
) -> dict[str, object]:
    """A row; a test is the list of arguments and then the value."""
    tests = {
        key: [{"args": one[:-1], "expected": one[-1]} for one in cases]  # type: ignore[index]
        for key, cases in (("visible", visible), ("hidden", hidden))
    }
    return {"id": entry, "entry": entry, "text": text, "solution": solution, **tests}


def _program(
    name: str,
    text: str,
    visible: Sequence[tuple[str, str]],
    hidden: Sequence[tuple[str, str]],
    solution: str,
) -> dict[str, object]:
    tests = {
        key: [{"stdin": given, "stdout": wanted} for given, wanted in cases]
        for key, cases in (("visible", visible), ("hidden", hidden))
    }
    return {"id": name, "text": text, "solution": solution, **tests}


@cache
def problems(split: str) -> tuple[Problem, ...]:
    """Those of `"train"` or `"eval"`; no problem is in both."""
    rows = {
        "train": (*_TRAIN_FUNCTIONS, *_TRAIN_PROGRAMS),
        "eval": (*_EVAL_FUNCTIONS, *_EVAL_PROGRAMS),
    }
    return tuple(
        plain_problem(Row(f"built-in problem {row['id']}", row)) for row in rows.get(split, ())
    )


_TRAIN_FUNCTIONS = (
    _function(
        "second_largest",
        "Return the second largest different number of a list, or None where there is none.",
        [[[3, 1, 2], 2]],
        [[[5, 5, 4], 4], [[7], None], [[], None], [[2, 2], None], [[-1, -5, -3, -1], -3]],
        """
def second_largest(numbers):
    different = sorted(set(numbers))
    return different[-2] if len(different) > 1 else None
""",
    ),
    _function(
        "run_lengths",
        "Return the runs of equal characters of a text as a list of [character, length].",
        [["aab", [["a", 2], ["b", 1]]]],
        [
            ["", []],
            ["zzzz", [["z", 4]]],
            ["abba", [["a", 1], ["b", 2], ["a", 1]]],
            ["  x", [[" ", 2], ["x", 1]]],
        ],
        """
from itertools import groupby

def run_lengths(text):
    return [[character, len(list(run))] for character, run in groupby(text)]
""",
    ),
    _function(
        "digit_sum",
        "Return the sum of the decimal digits of a whole number; its sign does not count.",
        [[123, 6]],
        [[0, 0], [-45, 9], [99999, 45], [1000000, 1], [7, 7]],
        """
def digit_sum(number):
    return sum(int(digit) for digit in str(abs(number)))
""",
    ),
    _function(
        "is_anagram",
        "Tell whether two texts have the same letters, in any order and case; other characters do "
        "not count.",
        [["Listen", "Silent", True]],
        [
            ["abc", "abd", False],
            ["Dormitory", "dirty room!", True],
            ["aab", "abb", False],
            ["", "", True],
            ["a", "", False],
        ],
        """
def is_anagram(first, second):
    def letters(text):
        return sorted(one for one in text.lower() if one.isalpha())
    return letters(first) == letters(second)
""",
    ),
    _function(
        "merge_sorted",
        "Merge two ascending lists into one ascending list.",
        [[[1, 4], [2, 3], [1, 2, 3, 4]]],
        [
            [[], [], []],
            [[], [5], [5]],
            [[1, 1], [1], [1, 1, 1]],
            [[-3, 0, 9], [-4, 10], [-4, -3, 0, 9, 10]],
        ],
        """
def merge_sorted(first, second):
    return sorted([*first, *second])
""",
    ),
    _function(
        "balanced",
        "Tell whether the brackets ()[]{} of a text close each other properly; other characters do "
        "not count.",
        [["(a[0])", True]],
        [["([)]", False], ["", True], ["((", False], ["}{", False], ["f(x){y[z]}", True]],
        """
def balanced(text):
    closing, open_ones = {")": "(", "]": "[", "}": "{"}, []
    for one in text:
        if one in "([{":
            open_ones.append(one)
        elif one in closing and (not open_ones or open_ones.pop() != closing[one]):
            return False
    return not open_ones
""",
    ),
    _function(
        "rotate",
        "Rotate a list to the right by a number of places, which may be negative or larger than "
        "the list is long.",
        [[[1, 2, 3, 4], 1, [4, 1, 2, 3]]],
        [
            [[1, 2, 3], 0, [1, 2, 3]],
            [[1, 2, 3], -1, [2, 3, 1]],
            [[1, 2, 3], 7, [3, 1, 2]],
            [[], 3, []],
        ],
        """
def rotate(items, places):
    if not items:
        return []
    places %= len(items)
    return items[len(items) - places:] + items[:len(items) - places]
""",
    ),
    _function(
        "primes_below",
        "Return all prime numbers below a limit, in order.",
        [[10, [2, 3, 5, 7]]],
        [[2, []], [0, []], [3, [2]], [30, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]]],
        """
def primes_below(limit):
    return [n for n in range(2, limit) if all(n % d for d in range(2, int(n ** 0.5) + 1))]
""",
    ),
    _function(
        "to_roman",
        "Return a whole number from 1 to 3999 in Roman numerals.",
        [[14, "XIV"]],
        [[1, "I"], [9, "IX"], [40, "XL"], [1994, "MCMXCIV"], [3999, "MMMCMXCIX"]],
        """
def to_roman(number):
    signs = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"),
             (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
    text = ""
    for value, sign in signs:
        while number >= value:
            text, number = text + sign, number - value
    return text
""",
    ),
    _function(
        "transpose",
        "Return the transpose of a matrix, given as a list of rows of equal length.",
        [[[[1, 2], [3, 4]], [[1, 3], [2, 4]]]],
        [[[[1, 2, 3]], [[1], [2], [3]]], [[], []], [[[5]], [[5]]]],
        """
def transpose(rows):
    return [list(column) for column in zip(*rows)]
""",
    ),
    _function(
        "median",
        "Return the median of a list of numbers that is not empty: with an even count, the mean of "
        "the middle two.",
        [[[3, 1, 2], 2]],
        [[[4, 1, 3, 2], 2.5], [[7], 7], [[1, 1, 1, 9], 1], [[-1, -2], -1.5]],
        """
def median(numbers):
    ordered, middle = sorted(numbers), len(numbers) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
""",
    ),
    _function(
        "word_counts",
        "Count the words of a text, in lower case; a word is a run of letters.",
        [["The cat, the dog", {"the": 2, "cat": 1, "dog": 1}]],
        [["", {}], ["a A b", {"a": 2, "b": 1}], ["x1y", {"x": 1, "y": 1}]],
        """
import re

def word_counts(text):
    counts = {}
    for word in re.findall("[a-z]+", text.lower()):
        counts[word] = counts.get(word, 0) + 1
    return counts
""",
    ),
    _function(
        "edit_distance",
        "Return the fewest insertions, deletions and replacements of one character that turn one "
        "text into another.",
        [["cat", "cut", 1]],
        [["", "abc", 3], ["kitten", "sitting", 3], ["same", "same", 0], ["flaw", "lawn", 2]],
        """
def edit_distance(first, second):
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
""",
    ),
    _function(
        "change_ways",
        "Return in how many ways an amount can be paid with coins of the given values, each as "
        "often as wanted; the order of coins does not count.",
        [[4, [1, 2], 3]],
        [[0, [5], 1], [3, [2], 0], [10, [1, 2, 5], 10], [100, [50, 20, 10], 10]],
        """
def change_ways(amount, coins):
    ways = [1] + [0] * amount
    for coin in coins:
        for paid in range(coin, amount + 1):
            ways[paid] += ways[paid - coin]
    return ways[amount]
""",
    ),
)

_TRAIN_PROGRAMS = (
    _program(
        "sum_of_lines",
        "The input has one whole number on each line. Write their sum.",
        [("1\n2\n3\n", "6\n")],
        [("-5\n5\n", "0\n"), ("42\n", "42\n"), ("1000000000\n2000000000\n", "3000000000\n")],
        """
import sys
print(sum(int(line) for line in sys.stdin if line.strip()))
""",
    ),
    _program(
        "reverse_words",
        "Write the words of each line of the input in reverse order, with one space between them.",
        [("one two three\n", "three two one\n")],
        [("a\n", "a\n"), ("x  y\nu v w\n", "y x\nw v u\n"), ("left right\n", "right left\n")],
        """
import sys
for line in sys.stdin:
    print(*reversed(line.split()))
""",
    ),
    _program(
        "multiplication_table",
        "The input is a whole number n from 1 to 9. Write n lines; line i has i * 1 to i * n, with "
        "one space between them.",
        [("2\n", "1 2\n2 4\n")],
        [
            ("1\n", "1\n"),
            ("3\n", "1 2 3\n2 4 6\n3 6 9\n"),
            ("4\n", "1 2 3 4\n2 4 6 8\n3 6 9 12\n4 8 12 16\n"),
        ],
        """
n = int(input())
for i in range(1, n + 1):
    print(*(i * j for j in range(1, n + 1)))
""",
    ),
    _program(
        "most_frequent_letter",
        "Write the letter that is most frequent in the input line and how often it is there, as in "
        "`a 3`. Case does not count; of several letters take the first of the alphabet.",
        [("Banana\n", "a 3\n")],
        [("zzyy\n", "y 2\n"), ("Q\n", "q 1\n"), ("Hello, World!\n", "l 3\n")],
        """
letters = [one for one in input().lower() if one.isalpha()]
best = min(set(letters), key=lambda one: (-letters.count(one), one))
print(best, letters.count(best))
""",
    ),
    _program(
        "grid_path",
        "The first line has the height h of a grid, and h lines follow with its cells, `.` or `#`. "
        "Write the fewest steps, up, down, left or right over `.` cells, from the top left cell to "
        "the bottom right one, or -1 where there is no way. Both of these cells are `.`.",
        [("2\n..\n#.\n", "2\n")],
        [
            ("1\n.\n", "0\n"),
            ("3\n.#.\n.#.\n.#.\n", "-1\n"),
            ("3\n...\n##.\n...\n", "4\n"),
            ("3\n..#.\n#..#\n.#..\n", "5\n"),
        ],
        """
from collections import deque

height = int(input())
grid = [input() for _ in range(height)]
width = len(grid[0])
steps, queue = {(0, 0): 0}, deque([(0, 0)])
while queue:
    y, x = queue.popleft()
    for other in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
        inside = 0 <= other[0] < height and 0 <= other[1] < width
        if inside and other not in steps and grid[other[0]][other[1]] == ".":
            steps[other] = steps[y, x] + 1
            queue.append(other)
print(steps.get((height - 1, width - 1), -1))
""",
    ),
    _program(
        "temperatures",
        "Each line has a name and a temperature. Write the mean temperature of each name with two "
        "decimals, names in alphabetical order, as in `Oslo 3.50`.",
        [("Oslo 3\nOslo 4\n", "Oslo 3.50\n")],
        [
            ("b 1\na 2\n", "a 2.00\nb 1.00\n"),
            ("x -1.5\nx 1.5\n", "x 0.00\n"),
            ("n 1\nm 4\nn 2\nn 2\n", "m 4.00\nn 1.67\n"),
        ],
        """
import sys
seen = {}
for line in sys.stdin:
    if line.strip():
        name, value = line.split()
        seen.setdefault(name, []).append(float(value))
for name in sorted(seen):
    print(name, f"{sum(seen[name]) / len(seen[name]):.2f}")
""",
    ),
)

_EVAL_FUNCTIONS = (
    _function(
        "flatten",
        "Return all numbers of a list of numbers and lists, nested as deep as you like, in order.",
        [[[1, [2, [3]]], [1, 2, 3]]],
        [[[], []], [[[[[4]]], 5], [4, 5]], [[[], [[]], 1], [1]]],
        """
def flatten(items):
    flat = []
    for one in items:
        flat += flatten(one) if isinstance(one, list) else [one]
    return flat
""",
    ),
    _function(
        "longest_increase",
        "Return the length of the longest run of neighbours of a list in which each number is "
        "larger than the one before.",
        [[[1, 2, 2, 3, 4], 3]],
        [[[], 0], [[5], 1], [[3, 2, 1], 1], [[1, 2, 3, 0, 1, 2, 3, 4], 5]],
        """
def longest_increase(numbers):
    best = length = 0
    for place, number in enumerate(numbers):
        length = length + 1 if place and number > numbers[place - 1] else 1
        best = max(best, length)
    return best
""",
    ),
    _function(
        "caesar",
        "Shift each letter of a text forward in the alphabet, around its end, by a number of "
        "places that may be negative; case and other characters stay.",
        [["abz", 1, "bca"]],
        [["Hello, World!", 3, "Khoor, Zruog!"], ["bca", -1, "abz"], ["x", 26, "x"], ["", 5, ""]],
        """
def caesar(text, places):
    shifted = ""
    for one in text:
        if one.isascii() and one.isalpha():
            start = ord("A") if one.isupper() else ord("a")
            one = chr((ord(one) - start + places) % 26 + start)
        shifted += one
    return shifted
""",
    ),
    _function(
        "common_prefix",
        "Return the longest text that all texts of a list start with.",
        [[["flow", "flag"], "fl"]],
        [[[], ""], [["one"], "one"], [["a", "b"], ""], [["test", "tester", "te"], "te"]],
        """
import os

def common_prefix(texts):
    return os.path.commonprefix(texts)
""",
    ),
    _function(
        "collatz_steps",
        "Return after how many steps a positive whole number reaches 1: an even one is halved, an "
        "odd one is tripled and increased by 1.",
        [[6, 8]],
        [[1, 0], [2, 1], [27, 111], [97, 118]],
        """
def collatz_steps(number):
    steps = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return steps
""",
    ),
)

_EVAL_PROGRAMS = (
    _program(
        "column_sums",
        "Each line of the input has the same count of whole numbers. Write the sums of the columns "
        "with one space between them.",
        [("1 2\n3 4\n", "4 6\n")],
        [("5\n", "5\n"), ("1 -1\n-1 1\n", "0 0\n"), ("1 2 3\n4 5 6\n7 8 9\n", "12 15 18\n")],
        """
import sys
rows = [[int(one) for one in line.split()] for line in sys.stdin if line.strip()]
print(*map(sum, zip(*rows)))
""",
    ),
    _program(
        "seconds_between",
        "The input has two times of day on two lines, as in `09:05:00`. Write how many seconds lie "
        "between them, the earlier one first or not.",
        [("00:00:10\n00:01:00\n", "50\n")],
        [
            ("12:00:00\n12:00:00\n", "0\n"),
            ("23:59:59\n00:00:00\n", "86399\n"),
            ("01:02:03\n04:05:06\n", "10983\n"),
        ],
        """
def seconds(text):
    hours, minutes, rest = map(int, text.split(":"))
    return 3600 * hours + 60 * minutes + rest

print(abs(seconds(input()) - seconds(input())))
""",
    ),
    _program(
        "unique_lines",
        "Write each different line of the input once, in the order in which they first come.",
        [("a\nb\na\n", "a\nb\n")],
        [("x\n", "x\n"), ("q\nq\nq\n", "q\n"), ("c\nb\nc\na\nb\n", "c\nb\na\n")],
        """
import sys
print("\\n".join(dict.fromkeys(sys.stdin.read().splitlines())))
""",
    ),
)
