# SPDX-License-Identifier: MIT
"""Native Hybrid Attention as a differentiable PyTorch function on the CPU.

    from nha_attention import nha_attention
    o = nha_attention(q_rotated, k_rotated, q, k, v, log_gate, window=64)

Importing this compiles nha_attention.cpp, which takes a minute or two the first time. README.md
beside it says what is needed and how the parts fit together.
"""
from pathlib import Path
from typing import NamedTuple, Optional, Sequence, Union

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import cpp_extension

_FOLDER = Path(__file__).resolve().parent

_cpp = cpp_extension.load(
    name="nha_attention_cpp",
    sources=[str(_FOLDER / "nha_attention.cpp")],
    extra_include_paths=[str(_FOLDER.parent.parent / "include")],
    # PyTorch's parallel_for is a header, too: without -fopenmp it uses one thread.
    extra_cflags=["-std=c++20", "-O3", "-march=native", "-fopenmp"],
    extra_ldflags=["-fopenmp"],
)


class AttentionResults(NamedTuple):
    """All results of a call: B sequences of T tokens, N sequences in the state."""

    o: Tensor  # [B, T, Hq, Dv]
    lse: Tensor  # [B, T, Hq]: log of the softmax's denominator, -inf where nothing was read
    slot_share: Tensor  # [B, T, Hq]: the part of the softmax weight that fell on the slots
    slot_k: Tensor  # [N, Hkv, M, Dk]: the slots after the last token
    slot_v: Tensor  # [N, Hkv, M, Dv]
    mass: Tensor  # [N, Hkv, M]


class _NhaAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, options, cu_seqlens, full, *inputs):
        results = _cpp.forward(options, inputs, cu_seqlens, full)
        o, lse, slot_share = results[:3]
        ctx.save_for_backward(*inputs, cu_seqlens, o, lse, slot_share)
        ctx.set_materialize_grads(False)  # None for a result that the loss does not depend on
        ctx.options = options
        return tuple(results) if full else o

    @staticmethod
    @once_differentiable
    def backward(ctx, *cotangents):
        *inputs, cu_seqlens, o, lse, slot_share = ctx.saved_tensors
        results = [o, lse, slot_share, None, None, None]
        cotangents = list(cotangents) + [None] * (len(results) - len(cotangents))
        gradients = _cpp.backward(
            ctx.options, inputs, cu_seqlens, results, cotangents, ctx.needs_input_grad[3:]
        )
        return (None, None, None, *gradients)


def nha_attention(
    q_window: Optional[Tensor],
    k_window: Optional[Tensor],
    q_slot: Optional[Tensor],
    k_slot: Optional[Tensor],
    v: Tensor,
    log_gate: Optional[Tensor],
    write: Optional[Tensor] = None,
    slot_k: Optional[Tensor] = None,
    slot_v: Optional[Tensor] = None,
    mass: Optional[Tensor] = None,
    *,
    window: Union[int, Sequence[int]],
    slot_delay: Optional[int] = None,
    scale: Optional[float] = None,
    empty_slots: str = "participate",
    cu_seqlens: Union[None, Tensor, Sequence[int]] = None,
    full: bool = False,
) -> Union[Tensor, AttentionResults]:
    """Attends to slots and window with one softmax; differentiable in every tensor.

    q_window [B, T, Hq, Dk], k_window [B, T, Hkv, Dk]: rotary applied.
    q_slot, k_slot: the same shapes, not rotated. v: [B, T, Hkv, Dv].
    log_gate [B, T, Hkv, M]: log of each slot's retention, 0 or less.
    write [B, T, Hkv, M]: write strengths; None: 1 - exp(log_gate).
    slot_k [N, Hkv, M, Dk], slot_v [N, Hkv, M, Dv], mass [N, Hkv, M]: the slots to begin from; None:
        empty ones, and a mass of ones beside given slots.
    window: the newest tokens that are seen exactly, one number or one for each key/value head.
    slot_delay, scale, empty_slots: see include/nha/attention/README.md, "Options".
    cu_seqlens: N + 1 offsets of sequences packed along T, with B = 1.
    full: return AttentionResults in place of o.

    v, queries and keys are of one type: float32, float64, bfloat16 or float16. The others are
    float64 where v is, else float32. Raises ValueError, naming the argument that does not fit.
    """
    options = _cpp.AttentionOptions(window, slot_delay, scale, empty_slots)
    if cu_seqlens is not None:
        cu_seqlens = torch.as_tensor(cu_seqlens, dtype=torch.int64).contiguous()
    results = _NhaAttention.apply(
        options, cu_seqlens, full,
        q_window, k_window, q_slot, k_slot, v, log_gate, write, slot_k, slot_v, mass,
    )
    return AttentionResults(*results) if full else results
