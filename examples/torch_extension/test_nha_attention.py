# SPDX-License-Identifier: MIT
"""Tests of nha_attention: its definition written in PyTorch, gradcheck, and a little training.

    python3 test_nha_attention.py

Prints a line for each test; an assertion that fails ends it.
"""
import torch

from nha_attention import AttentionResults, nha_attention

NAMES = ["q_window", "k_window", "q_slot", "k_slot", "v", "log_gate", "write", "slot_k", "slot_v",
         "mass"]


def definition(q_window, k_window, q_slot, k_slot, v, log_gate, write=None, slot_k=None,
               slot_v=None, mass=None, *, window, slot_delay=None, scale=None,
               empty_slots="participate", cu_seqlens=None):
    """What nha_attention(full=True) computes, one token at a time."""
    tokens = [q_window, k_window, q_slot, k_slot, v, log_gate, write]
    slots = [slot_k, slot_v, mass]
    if cu_seqlens is not None:
        pieces = []
        for n, (first, last) in enumerate(zip(cu_seqlens, cu_seqlens[1:])):
            piece = [x if x is None else x[:, first:last] for x in tokens]
            begin = [x if x is None else x[n:n + 1] for x in slots]
            pieces.append(definition(*piece, *begin, window=window, slot_delay=slot_delay,
                                     scale=scale, empty_slots=empty_slots))
        return AttentionResults(*(torch.cat(x, dim=1 if i < 3 else 0)
                                  for i, x in enumerate(zip(*pieces))))

    batch, count, query_heads, key_dim = q_slot.shape
    _, _, heads, value_dim = v.shape
    group = query_heads // heads
    number = slot_k is not None  # the slots hold something
    if slot_k is None:
        slot_k = v.new_zeros(batch, heads, log_gate.shape[-1], key_dim)
        slot_v = v.new_zeros(batch, heads, log_gate.shape[-1], value_dim)
        mass = v.new_zeros(batch, heads, log_gate.shape[-1])
    elif mass is None:
        mass = torch.ones_like(slot_k[..., 0])
    write = -torch.expm1(log_gate) if write is None else write
    delay = window if slot_delay is None else slot_delay
    scale = key_dim ** -0.5 if scale is None else scale

    def per_query(x):  # [B, Hkv, ...] as every query head reads it
        return x.repeat_interleave(group, dim=1)

    # Begun with no tokens: a packed sequence may have none.
    o = [v.new_zeros(batch, 0, query_heads, value_dim)]
    lse = [v.new_zeros(batch, 0, query_heads)]
    share = [v.new_zeros(batch, 0, query_heads)]
    for t in range(count):
        j = t - delay
        if j >= 0:
            keep, add = log_gate[:, j].exp(), write[:, j]
            slot_k = keep[..., None] * slot_k + add[..., None] * k_slot[:, j, :, None]
            slot_v = keep[..., None] * slot_v + add[..., None] * v[:, j, :, None]
            mass = keep * mass + add
            number = True
        values, logits = [], []
        if number or empty_slots == "participate":
            corrected = empty_slots == "mass_corrected"
            key = slot_k / mass[..., None] if corrected else slot_k
            value = slot_v / mass[..., None] if corrected else slot_v
            logit = scale * torch.einsum("bhmd,bhd->bhm", per_query(key), q_slot[:, t])
            logits.append(logit + per_query(mass.log()) if corrected else logit)
            values.append(per_query(value))
        slot_count = logits[0].shape[-1] if logits else 0
        first = max(0, t - window + 1)
        if first <= t and window > 0:
            keys = per_query(k_window[:, first:t + 1].transpose(1, 2))
            logits.append(scale * torch.einsum("bhwd,bhd->bhw", keys, q_window[:, t]))
            values.append(per_query(v[:, first:t + 1].transpose(1, 2)))
        if not logits:  # nothing to read
            o.append(v.new_zeros(batch, 1, query_heads, value_dim))
            lse.append(v.new_full((batch, 1, query_heads), float("-inf")))
            share.append(v.new_zeros(batch, 1, query_heads))
            continue
        logits = torch.cat(logits, dim=-1)
        weights = logits.softmax(dim=-1)
        o.append(torch.einsum("bhw,bhwd->bhd", weights, torch.cat(values, dim=2))[:, None])
        lse.append(logits.logsumexp(dim=-1)[:, None])
        share.append(weights[..., :slot_count].sum(dim=-1)[:, None])
    per_token = [torch.cat(x, dim=1) for x in (o, lse, share)]
    return AttentionResults(*per_token, slot_k, slot_v, mass)


def random_inputs(tokens=6, batch=1, query_heads=2, kv_heads=2, key_dim=3, value_dim=2, slots=3,
                  sequences=None, write=False, initial=False, initial_mass=False, seed=0,
                  dtype=torch.float64):
    """Inputs in the order of NAMES, None where they are left out; all want gradients."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def uniform(*shape):
        return 0.1 + 0.9 * torch.rand(*shape, generator=random, dtype=torch.float64)

    n = sequences or batch
    inputs = [normal(batch, tokens, query_heads, key_dim), normal(batch, tokens, kv_heads, key_dim),
              normal(batch, tokens, query_heads, key_dim), normal(batch, tokens, kv_heads, key_dim),
              normal(batch, tokens, kv_heads, value_dim), -uniform(batch, tokens, kv_heads, slots),
              uniform(batch, tokens, kv_heads, slots) if write else None,
              normal(n, kv_heads, slots, key_dim) if initial else None,
              normal(n, kv_heads, slots, value_dim) if initial else None,
              uniform(n, kv_heads, slots) if initial_mass else None]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [x if x is None else x.to(dtype if i < 5 else wide).requires_grad_()
            for i, x in enumerate(inputs)]


# What random_inputs() is given, and the options of the call.
CASES = {
    "defaults": ({}, dict(window=3)),
    "window 0": ({}, dict(window=0)),
    "window longer than the text": ({}, dict(window=9)),
    "delay 0": ({}, dict(window=3, slot_delay=0)),
    "delay 1, scale 1": ({}, dict(window=3, slot_delay=1, scale=1.0)),
    "masked": ({}, dict(window=2, empty_slots="masked")),
    "masked, nothing to read at first": ({}, dict(window=0, empty_slots="masked")),
    "mass_corrected": ({}, dict(window=2, empty_slots="mass_corrected")),
    "mass_corrected, window 0": (dict(initial=True, initial_mass=True),
                                 dict(window=0, empty_slots="mass_corrected")),
    "grouped queries": (dict(batch=2, query_heads=4), dict(window=2)),
    "write strengths": (dict(write=True), dict(window=2)),
    "initial slots": (dict(batch=2, initial=True), dict(window=2)),
    "packed": (dict(tokens=9, sequences=4, initial=True),
               dict(window=2, cu_seqlens=[0, 4, 4, 5, 9])),
    "all at once": (dict(tokens=9, query_heads=4, sequences=2, write=True, initial=True,
                         initial_mass=True),
                    dict(window=3, slot_delay=2, scale=0.7, empty_slots="mass_corrected",
                         cu_seqlens=[0, 5, 9])),
}


def finite(results):
    """-infinity, the lse of a token with nothing to read, is a constant: 0 will do in its place."""
    return tuple(torch.where(torch.isfinite(x), x, torch.zeros_like(x)) for x in results)


def gradients_of(function, inputs, **options):
    """Results, and gradients of a loss that weighs every number of them differently."""
    inputs = [x if x is None else x.detach().requires_grad_() for x in inputs]
    results = function(*inputs, **options)
    loss = sum((x.double() * torch.arange(1, x.numel() + 1).reshape(x.shape).cos()).sum()
               for x in finite(results))
    wanted = [x for x in inputs if x is not None]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    return results, [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, wanted)]


def full(*inputs, **options):
    return nha_attention(*inputs, full=True, **options)


def relative_error(a, b):
    return float((a.double() - b).norm() / max(b.norm(), 1e-30))


def test_equals_its_definition():
    for name, (shape, options) in CASES.items():
        inputs = random_inputs(**shape)
        results, gradients = gradients_of(full, inputs, **options)
        expected, expected_gradients = gradients_of(definition, inputs, **options)
        for x, y in zip(results, expected):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12, msg=name)
        for x, y in zip(gradients, expected_gradients):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12, msg=name)
        assert torch.equal(nha_attention(*inputs, **options), results.o), name


def test_gradcheck():
    for name, (shape, options) in CASES.items():
        inputs = random_inputs(**shape)
        given = [x for x in inputs if x is not None]

        def call(*values):
            values = iter(values)
            return finite(full(*(x if x is None else next(values) for x in inputs), **options))

        assert torch.autograd.gradcheck(call, given), name


def test_float_and_half_types():
    for dtype, tolerance in ((torch.float32, 5e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-2)):
        inputs = random_inputs(tokens=40, key_dim=16, value_dim=16, slots=8, initial=True,
                               dtype=dtype)
        results, gradients = gradients_of(full, inputs, window=8)
        exact = [x if x is None else x.double() for x in inputs]
        expected, expected_gradients = gradients_of(definition, exact, window=8)
        assert results.o.dtype == dtype and results.lse.dtype == torch.float32
        for x, y in zip(results, expected):
            assert relative_error(x, y) < tolerance, (dtype, relative_error(x, y))
        for x, y, given in zip(gradients, expected_gradients, (x for x in inputs if x is not None)):
            assert x.dtype == given.dtype
            assert relative_error(x, y) < tolerance, (dtype, relative_error(x, y))


def test_one_tensor_in_two_roles_gets_both_gradients():
    _, _, q, k, v, log_gate = random_inputs()[:6]
    o = nha_attention(q, k, q, k, v, log_gate, window=3)
    d_q, d_k = torch.autograd.grad(o.sum(), [q, k])
    apart = [x.detach().clone().requires_grad_() for x in (q, k, q, k)]
    o = nha_attention(*apart, v, log_gate, window=3)
    d = torch.autograd.grad(o.sum(), apart)
    torch.testing.assert_close(d_q, d[0] + d[2])
    torch.testing.assert_close(d_k, d[1] + d[3])


def test_any_strides():
    inputs = random_inputs(tokens=7, batch=2)[:6]
    expected, expected_gradients = gradients_of(full, inputs, window=3)
    # Heads before tokens, as layers often have them, and a last axis that is not contiguous.
    for permute in ((0, 2, 1, 3), (3, 1, 2, 0)):
        back = [permute.index(axis) for axis in range(4)]
        strided = [x.detach().permute(permute).contiguous().permute(back) for x in inputs]
        assert not strided[0].is_contiguous()
        results, gradients = gradients_of(full, strided, window=3)
        assert all(map(torch.equal, results, expected))
        assert all(map(torch.equal, gradients, expected_gradients))
    # The gradient that sum() hands back is one number with strides of 0.
    nha_attention(*inputs, window=3).sum().backward()
    assert torch.isfinite(inputs[0].grad).all()


def test_slots_chain_two_calls():
    # With window 0 nothing but the slots goes from one call to the next, so that gradients are
    # those of one call.
    inputs = random_inputs(tokens=10)[:6]

    def in_two_calls(*inputs, **options):
        a = full(*(x[:, :4] for x in inputs), **options)
        b = full(*(x[:, 4:] for x in inputs), None, a.slot_k, a.slot_v, a.mass, **options)
        return AttentionResults(*(torch.cat(x, dim=1) for x in zip(a[:3], b[:3])), *b[3:])

    results, gradients = gradients_of(in_two_calls, inputs, window=0)
    expected, expected_gradients = gradients_of(full, inputs, window=0)
    for x, y in zip([*results, *gradients], [*expected, *expected_gradients]):
        torch.testing.assert_close(x, y)


def test_threads_do_not_change_a_bit():
    inputs = random_inputs(tokens=200, batch=2, query_heads=4, key_dim=16, value_dim=16, slots=8,
                           dtype=torch.float32)
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results, gradients = gradients_of(full, inputs, window=8)
        runs.append([*results, *gradients])
    torch.set_num_threads(before)
    assert all(map(torch.equal, *runs))


def test_only_wanted_gradients():
    inputs = [x if x is None else x.detach() for x in random_inputs()]
    inputs[4].requires_grad_()
    nha_attention(*inputs, window=3).sum().backward()
    assert inputs[4].grad is not None and inputs[0].grad is None
    with torch.no_grad():
        assert not nha_attention(*inputs, window=3).requires_grad


def test_tensors_that_nothing_reads_may_be_left_out():
    q_window, k_window, q_slot, k_slot, v, log_gate = random_inputs()[:6]
    o = nha_attention(None, None, q_slot, k_slot, v, log_gate, window=0)
    expected = nha_attention(q_window, k_window, q_slot, k_slot, v, log_gate, window=0)
    assert torch.equal(o, expected)
    # Windows alone; as long as the text, that is causal attention.
    results = full(q_window, k_window, None, None, v, None, window=6)
    logits = torch.einsum("bihd,bjhd->bhij", q_window, k_window) / 3 ** 0.5
    logits = logits.masked_fill(~torch.ones(6, 6, dtype=torch.bool).tril(), float("-inf"))
    expected = torch.einsum("bhij,bjhd->bihd", logits.softmax(dim=-1), v)
    torch.testing.assert_close(results.o, expected)
    assert results.slot_k.shape == (1, 2, 0, 3) and not results.slot_share.any()
    inputs = [q_window, k_window, v]
    for x, y in zip(torch.autograd.grad(results.o.square().sum(), inputs),
                    torch.autograd.grad(expected.square().sum(), inputs)):
        torch.testing.assert_close(x, y)
    # No tokens: the slots stay as they are.
    nothing = [x[:, :0] for x in (q_window, k_window, q_slot, k_slot, v, log_gate)]
    slots = random_inputs(initial=True)[7:9]
    results = full(*nothing, None, *slots, window=3)
    assert results.o.shape == (1, 0, 2, 2) and torch.equal(results.slot_k, slots[0])
    d_slot_k, = torch.autograd.grad(results.slot_k.sum(), slots[:1])
    assert torch.equal(d_slot_k, torch.ones_like(d_slot_k))


def test_wrong_arguments_are_named():
    def refuses(words, *changes, **options):
        inputs = [x if x is None else x.detach() for x in random_inputs()]
        for index, change in changes:
            inputs[index] = change(inputs[index])
        try:
            nha_attention(*inputs, **dict(dict(window=3), **options))
        except ValueError as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"no error that says: {words}")

    refuses("log_gate", (5, torch.neg))
    refuses("k_window is [1, 5, 2, 3]; expected [1, 6, 2, 3]", (1, lambda x: x[:, :5]))
    refuses("q_slot is of type Float; expected Double", (2, torch.Tensor.float))
    refuses("v is of type Long", (4, torch.Tensor.long))
    refuses("v has 3 axes; expected 4", (4, lambda x: x[0]))
    refuses("slot_delay is 4", slot_delay=4)
    refuses("empty_slots is 'mask'", empty_slots="mask")
    refuses("cu_seqlens goes from 0 to 5", cu_seqlens=[0, 5])
    refuses("slot_v", (7, lambda _: torch.zeros(1, 2, 3, 3, dtype=torch.float64)))


def test_gradient_descent():
    # A layer of one head that learns to give back what came five tokens ago, beyond its window.
    torch.manual_seed(0)
    size, slots, tokens = 8, 8, 24
    project = torch.nn.Linear(size, 3 * size + slots)
    out = torch.nn.Linear(size, size)
    x = torch.randn(4, tokens, size)
    target = torch.roll(x, 5, dims=1)
    parameters = [*project.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(200):
        q, k, v, gate = project(x)[:, :, None].split([size, size, size, slots], dim=-1)
        log_gate = torch.nn.functional.logsigmoid(gate)
        o = nha_attention(q, k, q, k, v, log_gate, window=4)
        loss = (out(o[:, :, 0]) - target)[:, 5:].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0], (losses[0], losses[-1])


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print("ok", name[len("test_"):].replace("_", " "), flush=True)
