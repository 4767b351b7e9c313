"""Attention over packed inputs: all tokens share one tensor, and each input attends only to itself."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from m3index.encoder import hardware
from m3index.encoder.hardware import AMPERE, Card
from m3index.encoder.memory import is_shortage
from m3index.encoder.packing import Pack

NAME = "m3index_packed"
Path: TypeAlias = Literal["varlen", "runs"]
"""varlen: one variable-length kernel for the pack. runs: scaled_dot_product_attention once for each run of
inputs of equal length."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spans:
    """The boundaries of the inputs in a pack.

    runs: (start, inputs, length) for neighbours of equal length, which share one attention call.
    cumulative: (n + 1,) int32 on the device. longest: the number of tokens in the longest input.
    """

    runs: tuple[tuple[int, int, int], ...]
    cumulative: Tensor
    longest: int

    @classmethod
    def of(cls, pack: Pack, cumulative: Tensor) -> Spans:
        runs: list[tuple[int, int, int]] = []
        for start, length in zip(pack.bounds[:-1].tolist(), pack.lengths.tolist(), strict=True):
            if runs and runs[-1][2] == length:
                first, inputs, _ = runs[-1]
                runs[-1] = (first, inputs + 1, length)
            else:
                runs.append((start, 1, length))
        return cls(tuple(runs), cumulative, pack.longest)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Spans,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """softmax(q k^T scale) v within each input. query: (t, heads, d); key, value: (t, kv heads, d).

    `window`: a token attends to tokens less than this distance away (only preceding ones if causal). See
    `path` for how it is computed.
    """
    if window is not None and window >= spans.longest:
        window = None
    card, head_size = hardware.capability(query.device), query.shape[-1]
    chosen = path(
        card, query.dtype, head_size,
        gradients=torch.is_grad_enabled() and query.requires_grad, scale=scale, windowed=window is not None,
    )  # fmt: skip
    if chosen == "varlen" and _varlen_runs(query.device, query.dtype, head_size):
        return _varlen(query, key, value, spans, causal, window)
    if card is not None and query.shape[1] != key.shape[1]:
        # Only flash attention shares keys. Elsewhere on CUDA, torch would compute whole matrices of scores.
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    if _backward_is_slow(query):
        with torch.autocast(query.device.type, enabled=False):
            q, k, v = (x.float() for x in (query, key, value))
            return attend(q, k, v, spans, causal=causal, scale=scale, window=window).to(query.dtype)
    # One split and one concatenation: the backward pass of a slice fills a whole tensor with zeros each time.
    sizes = [inputs * length for _, inputs, length in spans.runs]
    outputs: list[Tensor] = []
    for (_, inputs, length), *parts in zip(
        spans.runs, *(torch.split_with_sizes(x, sizes) for x in (query, key, value)), strict=True
    ):
        q, k, v = (x.view(inputs, length, x.shape[1], x.shape[2]).transpose(1, 2) for x in parts)
        mask = None if window is None else _window_mask(length, window, causal, query.device)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal and mask is None, scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        outputs.append(y.transpose(1, 2).reshape(inputs * length, query.shape[1], query.shape[2]))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _backward_is_slow(query: Tensor) -> bool:
    """The backward pass in half precision on a CPU takes two to six times as long as in fp32."""
    half = query.dtype in (torch.float16, torch.bfloat16)
    return half and query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad


def _window_mask(length: int, window: int, causal: bool, device: torch.device) -> Tensor:
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions[None, :]
    return (distance < window) & (distance >= 0 if causal else distance > -window)


def path(
    card: Card | None, dtype: torch.dtype, head_size: int, *,
    gradients: bool = False, scale: float | None = None, windowed: bool = False,
) -> Path:  # fmt: skip
    """How attention of this kind is computed on this card; None is a device without CUDA.

    The limits of the variable-length kernel are in torch's flash_api.cpp (mha_varlen_fwd, mha_varlen_bwd) and
    sdp_utils.cpp: Ampere or later, half precision, heads of a size that is a multiple of 8 up to 256, and for
    sizes of 193 to 224 gradients only on cards for data centres. Everything else goes by runs of equal
    lengths: one call with a block-diagonal mask is 3 to 40 times slower on CPUs.
    """
    if card is None or card < AMPERE or dtype not in (torch.float16, torch.bfloat16):
        return "runs"
    if head_size % 8 or head_size > 256:
        return "runs"
    small_cores = (8, 6) <= card <= (8, 9) or card >= (12, 0)
    if gradients and small_cores and 192 < head_size <= 224:
        return "runs"
    # Use only the kernel's default scale: the argument for another one differs between torch releases.
    if _varlen_attn() is None or (scale is not None and abs(scale - head_size**-0.5) > 1e-6):
        return "runs"
    return "runs" if windowed and not _varlen_takes("window_size") else "varlen"


@cache
def _varlen_runs(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Tries the kernel once: a torch that was built without it, or not for this card, refuses it."""
    x = torch.ones(2, 1, head_size, dtype=dtype, device=device)
    bounds = torch.tensor([0, 2], dtype=torch.int32, device=device)
    try:
        with torch.inference_mode():
            right = torch.allclose(_varlen_attn()(x, x, x, bounds, bounds, 2, 2), x, atol=0.1)
        problem = None if right else "its result is wrong"
    except RuntimeError as e:
        if is_shortage(e):
            raise
        problem = str(e).strip().partition("\n")[0] or type(e).__name__
    if problem is not None:
        _log.warning(
            "torch's variable-length attention does not run on %s (%s), so texts of different lengths are "
            "encoded one after the other, which is slower. Install a torch that is built for this card.",
            device,
            problem,
        )
    return problem is None


@cache
def _varlen_attn() -> Any:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


@cache
def _varlen_takes(name: str) -> bool:
    return name in inspect.signature(_varlen_attn()).parameters


def _varlen(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, causal: bool, window: int | None
) -> Tensor:
    """torch's varlen kernel. The first seven arguments are positional; the rest differ between releases."""
    options: dict[str, Any] = {}
    if causal or window is not None:
        if _varlen_takes("window_size"):
            reach = -1 if window is None else window - 1
            options["window_size"] = (reach, 0 if causal else reach)
        else:
            options["is_causal"] = True
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and _varlen_takes("enable_gqa"):
        options["enable_gqa"] = True
    elif groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    cu, longest = spans.cumulative, spans.longest
    return _varlen_attn()(query, key, value, cu, cu, longest, longest, **options)  # type: ignore[no-any-return]


def register() -> None:
    """Registers `attn_implementation="m3index_packed"` with transformers."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _transformers_attention)


def _transformers_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  always None: packed inputs have no padding
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    packed_spans: Spans | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query: (1, heads, t, d), as transformers passes it -> (1, t, heads, d)."""
    if packed_spans is None:
        raise RuntimeError(f"{type(module).__name__} does not pass its keyword arguments to the attention")
    causal = bool(getattr(module, "is_causal", False)) if is_causal is None else is_causal
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = attend(q, k, v, packed_spans, causal=causal, scale=scaling, window=sliding_window)
    return out[None], None
