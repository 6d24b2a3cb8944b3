"""Where a rank of the learner computes, and how it meets the others."""

from __future__ import annotations

import os
import sys
import weakref

import torch
import torch.distributed

from agentrl.core.errors import SetupError
from agentrl.engine.process_group import share_process_group

_met: list[weakref.ref[object]] = []
"""The process group that the last learner of this process met in."""


def device_of(name: str) -> torch.device:
    """The device of a setting; `"auto"` is a GPU where there is one."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SetupError(
            "learner.device is 'cuda', but torch sees no GPU. Use 'auto', or install the GPU build "
            'of torch: pip install "agentrl[gpu]"'
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def join(ranks: int, rank: int, address: str | None, device: torch.device) -> None:
    """Meet the other ranks; a process that already met somebody else must have met as many."""
    _meet(ranks, rank, address, device)
    group = torch.distributed.group.WORLD
    # Somebody may have destroyed the group that DeepSpeed remembers, and made another one.
    if not _met or _met[0]() is not group:
        remembered = sys.modules.get("deepspeed.utils.groups")
        if remembered is not None:
            remembered._release_process_group_references()
        _met[:] = [weakref.ref(group)]


def _meet(ranks: int, rank: int, address: str | None, device: torch.device) -> None:
    # DeepSpeed chooses its accelerator when it is first imported, from this variable.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")  # each rank sees its own GPU only, as Ray gives it
    share_process_group()
    if torch.distributed.is_initialized():
        found = torch.distributed.get_world_size()
        if found != ranks:
            raise SetupError(
                f"this process already belongs to a torch.distributed group of {found}, the "
                f"learner needs one of {ranks}. Run several ranks as Ray actors (runtime: ray)"
            )
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    if ranks == 1:
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        return
    if address is None:
        raise SetupError(f"{ranks} ranks need an address to meet at, tcp://host:port")
    torch.distributed.init_process_group(backend, init_method=address, rank=rank, world_size=ranks)
