"""The process group of torch, which outlives an engine where a learner of the process uses it."""

from __future__ import annotations

import threading

_kept = threading.Event()


def keep_process_group() -> None:
    """Say that somebody else than vLLM computes in this process's group: it stays to the end."""
    _kept.set()


def spare_process_group() -> None:
    """Let vLLM's cleanup end its own groups only, and the process's where nobody else is in it.

    vLLM joins a group that is there already, and destroys it all the same when its engine ends. A
    learner of the process could not take another step. The next engine joins it again.
    """
    import torch.distributed
    from vllm.distributed import parallel_state

    if torch.distributed.is_initialized():
        keep_process_group()
    parallel_state.destroy_distributed_environment = _end_vllms_groups


def _end_vllms_groups() -> None:
    """In the place of vLLM's own function, which its cleanup calls."""
    import torch.distributed
    from vllm.distributed import parallel_state

    world, parallel_state._WORLD = parallel_state._WORLD, None
    parallel_state._NODE_COUNT = None
    if world is not None:
        world.destroy()
    if torch.distributed.is_initialized() and not _kept.is_set():
        torch.distributed.destroy_process_group()
