"""Fits a linear head or projection by least squares, to start training when there is nothing to copy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_RIDGE = 1e-3


class LeastSquares:
    """The W, b that minimise |x W^T + b - y|^2 with a small ridge on W, in float64.

    Inputs (n, k) and targets (n, m) may be added in any number of parts; only (k + 1)(k + 1 + m) numbers are
    kept. The ridge is in units of the mean square of the inputs.
    """

    def __init__(self) -> None:
        self._gram = self._cross = torch.zeros(())
        self._device = torch.device("cpu")

    def add(self, x: Tensor, y: Tensor) -> None:
        self._device = x.device
        wide = torch.cat([x, x.new_ones(len(x), 1)], 1).double().cpu()
        self._gram = self._gram + wide.T @ wide
        self._cross = self._cross + wide.T @ y.double().cpu()

    def solve(self) -> nn.Linear:
        size, outputs = self._cross.shape
        damp = torch.full((size,), _RIDGE * float(self._gram.diagonal()[:-1].mean()), dtype=torch.float64)
        damp[-1] = 0.0
        solution = torch.linalg.solve(self._gram + damp.diag(), self._cross).float()
        head = nn.Linear(size - 1, outputs, device="meta")
        head.weight = nn.Parameter(solution[:-1].T.contiguous(), requires_grad=False)
        head.bias = nn.Parameter(solution[-1].contiguous(), requires_grad=False)
        return head.to(self._device)
