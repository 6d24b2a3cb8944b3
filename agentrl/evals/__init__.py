"""Evaluation: suites of tasks, samples that survive anything, and scores with honest intervals."""
