from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from m3index.encoder import attention, packing
from m3index.encoder.attention import Spans


def spans(lengths: list[int]) -> Spans:
    pack = packing.pack([np.zeros(n, np.int32) for n in lengths])
    return Spans.of(pack, torch.from_numpy(pack.bounds))


def masked(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], causal: bool, window: int | None) -> Tensor:
    """One dense softmax over everything, with a mask: slow and plain."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.cat([torch.arange(n) for n in lengths])
    distance = place[:, None] - place[None, :]
    seen = owner[:, None] == owner[None, :]
    if causal:
        seen &= distance >= 0
    if window is not None:
        seen &= distance.abs() < window
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    logits = torch.einsum("ihd,jhd->hij", q, k) * q.shape[-1] ** -0.5
    weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weights, v)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3, 50])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("lengths", [[7], [5, 5, 3, 3, 3, 1], [1, 1, 9]])
def test_each_input_sees_only_itself(
    lengths: list[int], kv_heads: int, window: int | None, causal: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    t = sum(lengths)
    q = torch.randn(t, 4, 8, generator=generator)
    k, v = torch.randn(2, t, kv_heads, 8, generator=generator)
    got = attention.attend(q, k, v, spans(lengths), causal=causal, window=window)
    torch.testing.assert_close(got, masked(q, k, v, lengths, causal, window), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_with_gradients_a_cpu_computes_it_in_fp32(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within autocast, which would narrow the inputs again. Without gradients nothing is widened."""
    asked: list[torch.dtype] = []
    plain = attention.F.scaled_dot_product_attention

    def noted(q: Tensor, *others: Any, **options: Any) -> Tensor:
        asked.append(q.dtype)
        return plain(q, *others, **options)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", noted)
    lengths = [5, 5, 3]
    qkv = torch.randn(3, 13, 4, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        attention.attend(*qkv, spans(lengths))
    assert set(asked) == {dtype}
    asked.clear()
    narrow, wide = qkv.clone().requires_grad_(), qkv.float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        got = attention.attend(*narrow, spans(lengths))
    assert set(asked) == {torch.float32}
    want = masked(*wide, lengths, False, None)
    got.float().square().sum().backward()
    want.square().sum().backward()
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), want, atol=0.02, rtol=0.02)
    torch.testing.assert_close(narrow.grad.float(), wide.grad, atol=0.05, rtol=0.05)


class Whole(TorchDispatchMode):
    """Counts the operations whose result has a row for each token of the pack."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.seen = tokens, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen += isinstance(out, Tensor) and out.dim() > 0 and len(out) == self.tokens
        return out


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_work_of_training_on_a_whole_pack_does_not_grow_with_its_runs(kv_heads: int) -> None:
    """The gradient of a slice, or of a tensor that is written in parts, is a tensor of the whole pack for
    each of them."""

    def whole(lengths: list[int]) -> int:
        q, k, v = (torch.randn(40, heads, 8, requires_grad=True) for heads in (4, kv_heads, kv_heads))
        with Whole(40) as made:
            attention.attend(q, k, v, spans(lengths)).square().sum().backward()
        assert all(x.grad is not None for x in (q, k, v))
        return made.seen

    assert whole([9, 8, 7, 6, 5, 3, 2]) == whole([21, 19])


def test_neighbours_of_equal_length_share_a_call() -> None:
    assert spans([4, 4, 4, 2, 2, 1]).runs == ((0, 3, 4), (12, 2, 2), (16, 1, 1))


@pytest.mark.parametrize("takes", [{"window_size", "enable_gqa"}, {"is_causal"}])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_what_the_varlen_kernel_is_asked_in_each_release(
    monkeypatch: pytest.MonkeyPatch, takes: set[str], kv_heads: int, causal: bool
) -> None:
    """The kernel needs CUDA; here a stand-in takes its arguments and computes by the plain way."""
    lengths, asked = [5, 5, 2], {}

    def kernel(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, **options: Any) -> Tensor:  # fmt: skip  # noqa: E501
        asked.update(options)
        assert cu_q.tolist() == cu_k.tolist() == [0, 5, 10, 12]
        assert (max_q, max_k) == (5, 5)
        assert "enable_gqa" in options or k.shape[1] == q.shape[1]
        is_causal = options.get("is_causal", False) or options.get("window_size", (-1, -1))[1] == 0
        return masked(q, k, v, lengths, is_causal, None)

    monkeypatch.setattr(attention, "_varlen_attn", lambda: kernel)
    monkeypatch.setattr(attention, "_varlen_takes", lambda name: name in takes)
    q, k, v = torch.randn(12, 4, 8), torch.randn(12, kv_heads, 8), torch.randn(12, kv_heads, 8)
    got = attention._varlen(q, k, v, spans(lengths), causal, None)
    torch.testing.assert_close(got, masked(q, k, v, lengths, causal, None))
    assert set(asked) <= takes


def test_model_code_that_drops_its_keyword_arguments_is_found_out() -> None:
    x = torch.zeros(1, 2, 3, 4)
    with pytest.raises(RuntimeError, match="keyword arguments"):
        attention._transformers_attention(torch.nn.Identity(), x, x, x, None)
