"""Draws what `benchmarks/samplers.py` measured: score against generated tokens, by recipe.

    python benchmarks/curves.py docs/curves/search.json "exact match, %" curve_search.svg

The line is the mean over the seeds, read off each run's evaluations by linear interpolation up to
the tokens that every run of the recipe has spent; the band is their standard deviation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("svg")
import matplotlib.pyplot as plt

COLOURS = ("#0b6e99", "#c4541b", "#3f7d20", "#7b4fa3", "#b8860b", "#2a9d8f", "#a23b5a")
CONTROL = "#5a5a5a"
"""Of the last recipe."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("curves", type=Path)
    parser.add_argument("label")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    runs = json.loads(options.curves.read_text())
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "agentrl", "font.family": "sans-serif"}
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    colours = [*COLOURS[: len(runs) - 1], CONTROL]
    for (recipe, seeds), colour in zip(runs.items(), colours, strict=True):
        spent = np.linspace(0, min(run["tokens"][-1] for run in seeds), 60)
        values = np.stack([np.interp(spent, run["tokens"], run["accuracy"]) for run in seeds])
        mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
        axes.plot(spent / 1000, mean, color=colour, label=f"{recipe} ({len(seeds)} seeds)")
        axes.fill_between(
            spent / 1000, mean - deviation, mean + deviation, color=colour, alpha=0.15, lw=0
        )
    axes.set(xlabel="generated tokens, thousands", ylabel=options.label, xlim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(options.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
