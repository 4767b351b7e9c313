"""The terms of the objective. Every term is a mean, so that weights mean the same for any batch.

Notation: s and t are the student's and the teacher's outputs, d are dense vectors (n, dim) of unit norm, w
are lexical weights and v are multi-vectors per token position. Only tokens of the text count: special tokens
are left out, and there is no padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from m3index.distill.options import Objective


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of a model for a batch of n texts and t tokens: dense (n, dim) of unit norm, weights (t,)
    before the relu, vectors (t, width) of unit norm, and hidden (t, h), the last hidden states. None: the
    model has no such head. layers: the states (t, h) after each compared layer other than the last."""

    dense: Tensor | None = None
    weights: Tensor | None = None
    vectors: Tensor | None = None
    hidden: Tensor | None = None
    layers: tuple[Tensor, ...] = ()

    def tensors(self) -> Iterator[Tensor]:
        every = (self.dense, self.weights, self.vectors, self.hidden, *self.layers)
        return (tensor for tensor in every if tensor is not None)


def joined(parts: Sequence[Outputs]) -> Outputs:
    """The outputs for several batches of one model, in their order, as for one batch."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    dense, weights, vectors, hidden = (
        None if getattr(first, name) is None else torch.cat([getattr(part, name) for part in parts])
        for name in ("dense", "weights", "vectors", "hidden")
    )
    layers = tuple(torch.cat(states) for states in zip(*(part.layers for part in parts), strict=True))
    return Outputs(dense, weights, vectors, hidden, layers)


def terms(objective: Objective, student: Outputs, teacher: Outputs, spoken: Tensor) -> dict[str, Tensor]:
    """The unweighted value of each term that has a weight. spoken: the places of the tokens that count.

    Places, because selecting by a mask waits for the device to count them."""
    values: dict[str, Tensor] = {}
    if objective.cosine:
        pairs = _prefixes(_there(student.dense), _there(teacher.dense), objective.matryoshka)
        if objective.standardised:
            pairs = [standardised(s, t) for s, t in pairs]
        values["cosine"] = torch.stack([cosine(s, t) for s, t in pairs]).mean()
    if objective.mse:
        pairs = _prefixes(_there(student.dense), _there(teacher.dense), objective.matryoshka)
        values["mse"] = torch.stack([F.mse_loss(s, t) for s, t in pairs]).mean()
    if objective.similarity:
        s, t = _there(student.dense), _there(teacher.dense)
        widths = [width for width in objective.matryoshka if width < s.shape[1]]
        students = [s, *(F.normalize(s[:, :width], dim=-1) for width in widths)]
        values["similarity"] = torch.stack([similarity(each, t) for each in students]).mean()
    if objective.lexical:
        values["lexical"] = lexical(_there(student.weights), _there(teacher.weights), spoken)
    if objective.multi_vector:
        values["multi_vector"] = tokens(_there(student.vectors), _there(teacher.vectors), spoken)
    if objective.hidden:
        values["hidden"] = states(_there(student.hidden), _there(teacher.hidden), spoken, objective)
    if objective.layers:
        pairs = list(zip(student.layers, teacher.layers, strict=True))
        values["layers"] = torch.stack([states(s, t, spoken, objective) for s, t in pairs]).mean()
    return values


def total(objective: Objective, found: Mapping[str, Tensor]) -> Tensor:
    weights = objective.weights()
    return torch.stack([weights[name] * term for name, term in found.items()]).sum()


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over texts of 1 - cos(s_i, t_i). Both (n, dim), unit norm."""
    return (1.0 - (student * teacher).sum(-1)).mean()


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over pairs i != j of (cos(s_i, s_j) - cos(t_i, t_j))^2. (n, any width), unit norm; 0 for one text.

    Similarity-preserving distillation: Tung and Mori 2019 (arXiv:1907.09682), on cosines.
    """
    n = len(student)
    if n < 2:
        return student.sum() * 0.0
    difference = student @ student.T - teacher @ teacher.T
    return (difference.square().sum() - difference.diagonal().square().sum()) / (n * (n - 1))


def lexical(student: Tensor, teacher: Tensor, spoken: Tensor) -> Tensor:
    """mean over tokens of (w_s - w_t)^2, in units of the teacher's variance over the batch. (t,) each,
    before the relu. spoken: the places of the tokens that count.

    Computed per position, before the maximum over equal tokens, so no array is as wide as the vocabulary. If
    the teacher's weight is positive, the student's counts without the relu even below zero: the relu has no
    gradient there, so a token whose weight fell to zero would stay at zero.
    """
    s, t = student[spoken], torch.relu(teacher[spoken])
    if len(t) < 2:
        return student.sum() * 0.0
    s = torch.where(t > 0, s, torch.relu(s))
    return F.mse_loss(s, t) / t.var(correction=0).clamp_min(1e-6)


def tokens(student: Tensor, teacher: Tensor, spoken: Tensor) -> Tensor:
    """mean over tokens of 1 - cos(v_s, v_t). (t, width) each. spoken: the places of the tokens that count."""
    s, t = student[spoken], teacher[spoken]
    if not len(t):
        return student.sum() * 0.0
    return (1.0 - F.cosine_similarity(s.float(), t.float(), dim=-1)).mean()


def states(student: Tensor, teacher: Tensor, spoken: Tensor, objective: Objective) -> Tensor:
    """mean over tokens of 1 - cos(h_s, h_t), standardised if the objective says so. (t, width) each."""
    s, t = student[spoken], teacher[spoken]
    if not len(t):
        return student.sum() * 0.0
    return cosine(*(standardised(s, t) if objective.standardised else (_unit(s), _unit(t))))


def standardised(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both (n, width) at unit norm, each component centred at the teacher's mean over the n rows first and
    divided by its deviation.

    In some models all vectors point nearly the same way, and a few components are large in every one of them:
    of a cosine, hardly anything is left for what tells texts and tokens apart.
    """
    deviation, mean = torch.std_mean(teacher.float(), 0, correction=0)
    scale = deviation.clamp_min(1e-3 * deviation.mean()).clamp_min(torch.finfo(torch.float32).tiny)
    return _unit((student.float() - mean) / scale), _unit((teacher.float() - mean) / scale)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1)


def _prefixes(student: Tensor, teacher: Tensor, widths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Both full vectors, and the first components of both at unit norm. Matryoshka: Kusupati et al. 2022
    (arXiv:2205.13147)."""
    cuts = [width for width in widths if width < student.shape[1]]
    shorter = [tuple(F.normalize(x[:, :width], dim=-1) for x in (student, teacher)) for width in cuts]
    return [(student, teacher), *shorter]  # type: ignore[list-item]


def _there(output: Tensor | None) -> Tensor:
    assert output is not None, "a term has a weight but its head is missing"
    return output


def describe(objective: Objective) -> dict[str, Any]:
    """The terms with a weight and their weights, for the certificate."""
    used: dict[str, Any] = {name: weight for name, weight in objective.weights().items() if weight}
    if objective.matryoshka:
        used["matryoshka"] = list(objective.matryoshka)
    if objective.standardised:
        used["standardised"] = True
    return used
