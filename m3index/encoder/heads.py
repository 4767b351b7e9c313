"""Pools the hidden states of packed tokens into dense vectors, and reads the files of the heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from zipfile import is_zipfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from m3index.encoder.layout import DenseSpec, NormalizeSpec, weight_files
from m3index.errors import MismatchError

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "GELU": F.gelu,
    "ReLU": torch.relu,
    "SiLU": F.silu,
    "Sigmoid": torch.sigmoid,
}


def read_tensors(path: Path, *, mapped: bool = False) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file, or of a `.pt` or `.bin` file with weights_only=True.

    mapped: read them from the file as they are used, if its format allows it; it must not change meanwhile.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(str(path)))
    try:
        in_place = mapped and is_zipfile(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=in_place)
    except Exception as e:  # torch raises many types for a non-pickle or a pickle of more than tensors
        raise MismatchError(f"{path} is not a file of tensors alone ({type(e).__name__}).") from e
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise MismatchError(f"{path} is not a file of named tensors.")
    return tensors


def load_linear(
    path: Path, inputs: int, outputs: int | None, *, bias: bool = True, name: str = ""
) -> nn.Linear:
    """Reads a linear layer in float32 and checks its shapes. outputs None: as many as the file has."""
    tensors = {k.removeprefix(name): v for k, v in read_tensors(path).items() if k.startswith(name)}
    weight, shift = tensors.get("weight"), tensors.get("bias")
    if weight is None or (bias and shift is None):
        raise MismatchError(f"{path} lacks {name}weight{f' or {name}bias' if bias else ''}.")
    outputs = weight.shape[0] if outputs is None else outputs
    if tuple(weight.shape) != (outputs, inputs) or (shift is not None and tuple(shift.shape) != (outputs,)):
        raise MismatchError(f"{path} has shape {tuple(weight.shape)}, expected {(outputs, inputs)}.")
    linear = nn.Linear(inputs, outputs, bias=shift is not None, device="meta")
    linear.weight = nn.Parameter(weight.float(), requires_grad=False)
    if shift is not None:
        linear.bias = nn.Parameter(shift.float(), requires_grad=False)
    return linear


class AfterPooling(nn.Module):
    """The `Dense` and `Normalize` modules of a model, then the first `dim` components at unit norm."""

    def __init__(self, specs: tuple[DenseSpec | NormalizeSpec, ...], dim: int) -> None:
        super().__init__()
        self.specs, self.dim = specs, dim
        self.linears, self.residuals = nn.ModuleList(), nn.ModuleList()
        for spec in specs:
            if isinstance(spec, DenseSpec):
                (path,) = weight_files(spec.directory)
                shape = spec.in_features, spec.out_features
                self.linears.append(load_linear(path, *shape, bias=spec.bias, name="linear."))
                if spec.residual and spec.in_features != spec.out_features:
                    self.residuals.append(load_linear(path, *shape, bias=False, name="residual."))

    def forward(self, pooled: Tensor) -> Tensor:
        """(n, features) -> (n, dim) at unit norm, in float32."""
        linears, residuals = iter(self.linears), iter(self.residuals)
        for spec in self.specs:
            if isinstance(spec, NormalizeSpec):
                pooled = F.normalize(pooled, dim=-1)
                continue
            out = _ACTIVATIONS[spec.activation](next(linears)(pooled))
            if spec.residual:
                out = out + (pooled if spec.in_features == spec.out_features else next(residuals)(pooled))
            pooled = out
        return F.normalize(pooled[:, : self.dim], dim=-1)


def pool(hidden: Tensor, bounds: Tensor, modes: tuple[str, ...], skip: int = 0) -> Tensor:
    """hidden (t, h) of packed inputs -> (n, h * modes) in float32, pooled as in sentence-transformers.

    bounds: (n + 1,) on the device of `hidden`. skip: how many leading tokens (a prompt) to leave out.
    """
    starts, ends = bounds[:-1].long(), bounds[1:].long()
    lengths = ends - starts
    starts = torch.where(lengths > skip, starts + skip, starts)
    out = []
    for mode in modes:
        if mode == "cls":
            out.append(hidden[starts].float())
        elif mode == "lasttoken":
            out.append(hidden[ends - 1].float())
        else:
            out.append(_over_tokens(hidden, starts, ends, bounds, mode))
    return torch.cat(out, dim=-1)


def _over_tokens(hidden: Tensor, starts: Tensor, ends: Tensor, bounds: Tensor, mode: str) -> Tensor:
    n, tokens = len(starts), len(hidden)
    positions = torch.arange(tokens, device=hidden.device)
    owner = torch.searchsorted(bounds[1:].long(), positions, right=True)
    kept = positions >= starts[owner]
    if mode == "max":
        masked = torch.where(kept[:, None], hidden.float(), -torch.inf)
        out = torch.full((n, hidden.shape[1]), -torch.inf, device=hidden.device)
        return out.scatter_reduce(0, owner[:, None].expand_as(masked), masked, "amax")
    weight = kept.float()
    if mode == "weightedmean":
        weight = weight * (positions - bounds[:-1].long()[owner] + 1)
    sums = torch.zeros(n, hidden.shape[1], device=hidden.device)
    sums.index_add_(0, owner, hidden.float() * weight[:, None])
    if mode == "mean_sqrt_len_tokens":
        return sums / (ends - starts).float().sqrt()[:, None]
    if mode == "mean":
        return sums / (ends - starts).float()[:, None]
    totals = torch.zeros(n, device=hidden.device).index_add_(0, owner, weight)
    return sums / totals[:, None]
