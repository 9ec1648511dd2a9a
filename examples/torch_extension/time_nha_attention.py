# SPDX-License-Identifier: MIT
"""Times nha_attention against the same operator written in PyTorch, forward and backward.

    python3 time_nha_attention.py [--tokens 2048] [--threads 1]
"""
import argparse
import time

import torch

from nha_attention import nha_attention


def chunked(q_window, k_window, q_slot, k_slot, v, log_gate, *, window, chunk):
    """The operator by chunks of tokens, from empty slots: a loop of matrix products and masks.

    For as many query as key/value heads, the default slot_delay, scale and empty_slots, and whole
    chunks.
    """
    batch, count, heads, dim = q_window.shape
    scale = dim ** -0.5
    heads_first = [x.transpose(1, 2) for x in (q_window, k_window, q_slot, k_slot, v, log_gate)]
    q_window, k_window, q_slot, k_slot, v, log_gate = heads_first
    # Before the text: tokens that no query sees, and that are written to the slots with strength 0.
    k_window, k_slot, v, log_gate = (torch.nn.functional.pad(x, (0, 0, window, 0))
                                     for x in (k_window, k_slot, v, log_gate))
    write = -torch.expm1(log_gate)
    slot_k = v.new_zeros(batch, heads, log_gate.shape[-1], dim)
    slot_v = torch.zeros_like(slot_k)
    causal = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    column = torch.arange(window + chunk)
    behind = torch.arange(chunk)[:, None] + window - column
    in_window = (behind >= 0) & (behind < window)

    # Cut all at once: the gradient of a slice taken in the loop would be as long as the text.
    def chunks(x):
        return x.split(chunk, dim=2)

    def bands(x):  # each chunk behind the window before it, [B, H, D, W + C]
        return x.unfold(2, window + chunk, chunk).unbind(2)

    outputs = []
    # In what is padded, a chunk's place holds the tokens that enter the slots meanwhile.
    for begin, q_window, q_slot, k_band, v_band, key, value, gate, add in zip(
            range(0, count, chunk), chunks(q_window), chunks(q_slot), bands(k_window), bands(v),
            chunks(k_slot), chunks(v), chunks(log_gate), chunks(write)):
        decay = gate.cumsum(dim=2)  # [B, H, C, M]
        pair = (decay[:, :, :, None] - decay[:, :, None]).masked_fill(~causal[:, :, None], -1e30)
        pair = pair.exp() * add[:, :, None]  # [B, H, C, C, M]: what is left of token j at query i
        kept = decay.exp()
        slot_logits = kept * (scale * q_slot @ slot_k.transpose(2, 3))
        slot_logits = slot_logits + ((scale * q_slot @ key.transpose(2, 3))[..., None]
                                     * pair).sum(dim=3)

        seen = in_window & (begin + column >= window)
        logits = (scale * q_window @ k_band).masked_fill(~seen, float("-inf"))
        weights = torch.cat([slot_logits, logits], dim=-1).softmax(dim=-1)
        on_slots, on_window = weights.split([slot_logits.shape[-1], logits.shape[-1]], dim=-1)
        outputs.append((on_slots * kept) @ slot_v + on_window @ v_band.transpose(2, 3)
                       + (on_slots[:, :, :, None] * pair).sum(dim=-1) @ value)

        last, whole = pair[:, :, -1].transpose(2, 3), kept[:, :, -1, :, None]
        slot_k = whole * slot_k + last @ key
        slot_v = whole * slot_v + last @ value
    return torch.cat(outputs, dim=2).transpose(1, 2)


def least_seconds(function, inputs, repeats):
    """Of forward and backward together, after one call to warm up."""
    # One thread's own time, as far as it can be had: other programs do not count then.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = []
    for _ in range(repeats + 1):
        begin = clock()
        torch.autograd.grad(function(*inputs).square().sum(), inputs)
        seconds.append(clock() - begin)
    return min(seconds[1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    sizes = [(1, a.tokens, a.heads, a.dim)] * 5 + [(1, a.tokens, a.heads, a.slots)]
    inputs = [torch.randn(size) for size in sizes]
    inputs[5] = torch.nn.functional.logsigmoid(inputs[5]) / 8
    inputs = [x.requires_grad_() for x in inputs]

    def ours(*inputs):
        return nha_attention(*inputs, window=a.window)

    seconds = least_seconds(ours, inputs, a.repeats)
    print(f"nha_attention: {seconds * 1e3:.1f} ms")
    expected = torch.autograd.grad(ours(*inputs).square().sum(), inputs)
    for chunk in (8, 16, 32):
        def theirs(*inputs):
            return chunked(*inputs, window=a.window, chunk=chunk)

        gradients = torch.autograd.grad(theirs(*inputs).square().sum(), inputs)
        error = max(float((x - y).norm() / y.norm()) for x, y in zip(gradients, expected))
        assert error < 1e-4, error
        other = least_seconds(theirs, inputs, a.repeats)
        print(f"PyTorch, chunks of {chunk:2}: {other * 1e3:.1f} ms, {other / seconds:.1f} times as "
              f"long; gradients differ by {error:.1e}")


if __name__ == "__main__":
    main()
