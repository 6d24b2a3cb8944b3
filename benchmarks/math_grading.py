r"""Math grading: grades per second and verdicts beside math-verify, and what hanging ones cost.

    python benchmarks/math_grading.py [--rounds 5] [--page]

The pairs are the hand-made ones of tests/graders/math_pairs.py. For the rate those that hang or
need sympy are left out (for both); every round sees its answers for the first time, golds are
known from the second round on. Goals: at least 2,000 grades/s of one core at verdicts no worse
than math-verify's; a hanging answer costs its deadline (1 s) + 0.1 s, in a thread too, and the next
one is not slowed. `--page` writes the table of docs/envs/math.md anew.
"""

from __future__ import annotations

import argparse
import logging
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from math_verify import parse, verify

from agentrl.graders import math as grading
from agentrl.graders import math_number
from agentrl.graders.math import Gold, Outcome, grade_answer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "graders"))
from math_pairs import PAIRS  # noqa: E402

PAGE = ROOT / "docs" / "envs" / "math.md"
SLOW = ("sums and integrals", "hostile")
HANGING = r"\int_0^1 \frac{\sin(x^7)}{x^{13}+e^x} \cdot \int_0^x \frac{e^{t^3}}{t^5+1} dt dx"
TABLE = re.compile(r"(?<=<!-- pairs -->\n).*?(?=<!-- end -->)", re.DOTALL)


def ours(answer: str, gold: Gold | str) -> bool:
    return grade_answer(answer, gold, deadline=30.0).outcome is Outcome.CORRECT


def theirs(answer: str, gold: Gold | str) -> bool:
    """math-verify with its defaults, which only work in the main thread."""
    text = gold if isinstance(gold, str) else gold.answer
    return bool(verify(parse(f"${text}$"), parse(f"\\boxed{{{answer}}}")))


def forget_answers() -> None:
    """Empty the caches that answers go through; what is known of golds stays."""
    for cached in (grading._value, math_number.exact, math_number.constant, math_number.symbols):
        cached.cache_clear()


def rate(judge: Callable[[str, Gold | str], bool], rounds: int) -> float:
    """Pairs per second of processor time, the median of `rounds` after one to warm up."""
    pairs = [pair for kind, some in PAIRS.items() if kind not in SLOW for pair in some]
    seconds = []
    for _ in range(rounds + 1):
        forget_answers()
        started = time.process_time()
        for gold, answer, _ in pairs:
            judge(answer, gold)
        seconds.append(time.process_time() - started)
    return len(pairs) / statistics.median(seconds[1:])


def verdicts() -> list[tuple[str, int, int, int]]:
    """(kind, pairs, ours right, math-verify right)."""
    logging.disable(logging.WARNING)
    return [
        (
            kind,
            len(pairs),
            sum(ours(answer, gold) == right for gold, answer, right in pairs),
            sum(theirs(answer, gold) == right for gold, answer, right in pairs),
        )
        for kind, pairs in PAIRS.items()
    ]


def table() -> str:
    """The verdicts in Markdown."""
    rows = verdicts()
    rows.append(("all", *(sum(row[column] for row in rows) for column in (1, 2, 3))))
    lines = ["| kind | pairs | ours right | math-verify right |", "|---|---|---|---|"]
    lines += [f"| {kind} | {count} | {one} | {two} |" for kind, count, one, two in rows]
    return "\n".join(lines) + "\n"


def hostile() -> dict[str, float]:
    """Seconds that a hanging answer, and the one after it, cost."""
    found: dict[str, float] = {}

    def timed(name: str, answer: str) -> None:
        started = time.monotonic()
        grade_answer(answer, "5")
        found[name] = time.monotonic() - started

    grading.pool().call({"gold": "1", "answer": "1"}, deadline=60.0)
    timed("a hanging answer, main thread", HANGING)
    timed("the one after it", r"\sum_{k=1}^{2} k")
    thread = threading.Thread(target=timed, args=("a hanging answer, other thread", f"{HANGING}+1"))
    thread.start()
    thread.join()
    timed("the same pair again", HANGING)
    timed("a tower of powers", "9^{9^{9^9}}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", action="store_true", help="write the table of the page")
    chosen = parser.parse_args()
    shown = table()
    if chosen.page:
        PAGE.write_text(TABLE.sub(lambda _: shown, PAGE.read_text()))
    print(shown)
    mine, peers = rate(ours, chosen.rounds), rate(theirs, 1)
    print(f"ours:        {mine:10,.0f} grades/s of one core")
    print(f"math-verify: {peers:10,.0f} grades/s of one core")
    print(f"ratio:       {mine / peers:10.1f}")
    for name, seconds in hostile().items():
        print(f"{name}: {seconds:.3f} s")
    grading.pool().close()


if __name__ == "__main__":
    main()
