"""The block mask of a tree, and FlexAttention under it: equal to attention by segments.

The kernel needs a GPU. Without one the same mask goes through PyTorch's eager form of it, which
also has a backward that the library refuses on a CPU only at its front door; and, forward only,
through the kernel compiled for the CPU.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention

from agentrl.learner import flex
from agentrl.learner.attention import attend_segments
from agentrl.learner.batch import Layout
from agentrl.learner.flex import BLOCK, attend_flex, block_mask, last_below

CPU = torch.device("cpu")


def test_a_token_is_seen_down_to_the_end_of_its_subtree():
    # 0 (2 tokens) -> 1 (1) and 2 (3); 3 (2) stands alone. Tokens: 00 1 222 33.
    layout = Layout((2, 1, 3, 2), (-1, 0, 0, -1))
    assert last_below(layout).tolist() == [5, 5, 2, 5, 5, 5, 7, 7]


@st.composite
def layouts(draw):
    """Depth-first forests, from single tokens to segments of several blocks."""
    count = draw(st.integers(1, 9))
    path: list[int] = []
    parents, lengths = [], []
    for index in range(count):
        keep = draw(st.integers(0, len(path)))
        path = path[:keep]
        parents.append(path[-1] if path else -1)
        lengths.append(draw(st.sampled_from([1, 2, 40, 127, 128, 129, 300])))
        path.append(index)
    return Layout(tuple(lengths), tuple(parents))


def dense(layout):
    """Who sees whom, from the definition: earlier tokens of the own path."""
    segment = np.repeat(np.arange(len(layout.lengths)), layout.lengths)
    above = np.eye(len(layout.lengths), dtype=bool)
    for index, parent in enumerate(layout.parents):
        if parent >= 0:
            above[index] |= above[parent]
    return above[segment][:, segment] & np.tri(len(segment), dtype=bool)


@settings(max_examples=30, deadline=None)
@given(layouts())
def test_the_blocks_are_those_that_hold_a_pair_that_sees_each_other(layout):
    seen = dense(layout)
    mask = block_mask(layout, CPU)
    tokens = len(seen)
    blocks = -(-tokens // BLOCK)
    padded = np.zeros((blocks * BLOCK, blocks * BLOCK), bool)
    padded[:tokens, :tokens] = seen
    inside = np.zeros_like(padded)
    inside[:tokens, :tokens] = True
    shape = (blocks, BLOCK, blocks, BLOCK)
    some = padded.reshape(shape).any((1, 3))
    whole = (padded | ~inside).reshape(shape).all((1, 3)) & some
    visited = np.zeros((2, blocks, blocks), bool)
    for number, (counts, indices) in enumerate(
        [(mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices)]
    ):
        for row in range(blocks):
            visited[number, row, indices[0, 0, row, : int(counts[0, 0, row])].numpy()] = True
    assert not (visited[0] & visited[1]).any()
    assert (visited[0] | visited[1]).tolist() == some.tolist()
    assert not (visited[1] & ~whole).any()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_output_and_gradients_are_those_of_attention_by_segments(heads, monkeypatch):
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    torch.manual_seed(0)
    layout = Layout((130, 3, 40, 2, 129, 7), (-1, 0, 1, 1, 0, -1))
    tokens = sum(layout.lengths)
    inputs = [
        torch.randn(1, count, tokens, 16, dtype=torch.float64, requires_grad=True)
        for count in (heads[0], heads[1], heads[1])
    ]
    found = attend_flex(*inputs, layout, 0.3)
    module = torch.nn.Module()
    expected = attend_segments(module, *inputs, None, scaling=0.3, layout=layout)[0].transpose(1, 2)
    upstream = torch.randn_like(found)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.slow
def test_the_compiled_kernel_is_one_for_all_trees_and_right(monkeypatch):
    # Compiled for this CPU, which knows its forward pass only; a GPU has one for both.
    torch.manual_seed(0)
    compiled = torch.compile(flex_attention.flex_attention, dynamic=True, fullgraph=True)
    monkeypatch.setattr(flex, "flex_attention", compiled)
    torch._dynamo.utils.counters.clear()
    for layout in (
        Layout((130, 3, 40, 2, 129, 7), (-1, 0, 1, 1, 0, -1)),
        Layout((10, 700, 3, 5), (-1, 0, 1, 1)),
        Layout((128, 128), (-1, 0)),
    ):
        tokens = sum(layout.lengths)
        inputs = [torch.randn(1, heads, tokens, 32) for heads in (4, 2, 2)]
        with torch.no_grad():
            found = attend_flex(*inputs, layout, 0.3)
        module = torch.nn.Module()
        expected = attend_segments(module, *inputs, None, scaling=0.3, layout=layout)[0]
        torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_compiled_kernel_agrees_with_attention_by_segments():
    torch.manual_seed(0)
    layout = Layout((130, 3, 40, 2, 129, 7), (-1, 0, 1, 1, 0, -1))
    tokens = sum(layout.lengths)
    inputs = [torch.randn(1, 4, tokens, 64, device="cuda", requires_grad=True) for _ in range(3)]
    found = attend_flex(*inputs, layout, None)
    cpu = [one.detach().cpu() for one in inputs]
    expected = attend_segments(torch.nn.Module(), *cpu, None, layout=layout)[0].transpose(1, 2)
    torch.testing.assert_close(found.cpu(), expected, atol=5e-3, rtol=5e-3)
    found.sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in inputs)
