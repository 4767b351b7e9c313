"""The objective, term by term. Every term is a mean, so that weights mean the same for any batch.

Notation: s and t are the student's and the teacher's outputs; d dense vectors (n, dim) of unit norm; w
lexical weights and v multi-vectors per token position, where only tokens of the text count: special
tokens are left out, padding does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from m3index.errors import UsageError


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model gives for a batch of n texts and t tokens: dense (n, dim) of unit norm; weights (t,)
    before the relu; vectors (t, width) of unit norm; hidden (t, h), the last hidden states. None: no such
    head. layers: the states (t, h) after the layers that are compared besides the last one."""

    dense: Tensor | None = None
    weights: Tensor | None = None
    vectors: Tensor | None = None
    hidden: Tensor | None = None
    layers: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Objective:
    """The weight of each term; zero leaves it out.

    matryoshka: widths besides the full one at which the dense terms are taken as well, in equal shares.
    """

    cosine: float = 0.0
    mse: float = 0.0
    similarity: float = 0.0
    lexical: float = 0.0
    multi_vector: float = 0.0
    hidden: float = 0.0
    layers: float = 0.0
    matryoshka: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.weights().values()) < 0:
            raise UsageError("The weight of a loss is not negative.")

    def weights(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if name != "matryoshka"}

    @property
    def per_token(self) -> bool:
        """Whether a term compares token by token, which needs the teacher's tokenizer."""
        return bool(self.lexical or self.multi_vector or self.hidden or self.layers)

    @property
    def same_width(self) -> bool:
        """Whether a term needs dense vectors as wide as the teacher's."""
        return bool(self.cosine or self.mse)

    def without(self, *terms: str) -> Objective:
        return replace(self, **dict.fromkeys(terms, 0.0))  # type: ignore[arg-type]


RECIPES: Mapping[str, Objective] = MappingProxyType(
    {
        # All heads at once. Weights of the heads as M3's own self-distillation balances them: the
        # lexical one low, since its scale is not bounded.
        "m3": Objective(cosine=1.0, similarity=1.0, lexical=0.1, multi_vector=0.5),
        # altaidevorg/bge-m3-distill-8l: MSE of the dense vectors alone.
        "mse": Objective(mse=1.0),
        # avditvs/multilingual-e5-small-distill-base: squared differences of pairwise cosines, Matryoshka.
        "pair-cosine": Objective(similarity=1.0, matryoshka=(64, 128, 256)),
    }
)


def terms(objective: Objective, student: Outputs, teacher: Outputs, spoken: Tensor) -> dict[str, Tensor]:
    """Each term that has a weight, unweighted. spoken: (t,) bool, the tokens that count."""
    found: dict[str, Tensor] = {}
    if objective.cosine:
        pairs = _prefixes(_there(student.dense), _there(teacher.dense), objective.matryoshka)
        found["cosine"] = torch.stack([cosine(s, t) for s, t in pairs]).mean()
    if objective.mse:
        pairs = _prefixes(_there(student.dense), _there(teacher.dense), objective.matryoshka)
        found["mse"] = torch.stack([F.mse_loss(s, t) for s, t in pairs]).mean()
    if objective.similarity:
        s, t = _there(student.dense), _there(teacher.dense)
        widths = [width for width in objective.matryoshka if width < s.shape[1]]
        students = [s, *(F.normalize(s[:, :width], dim=-1) for width in widths)]
        found["similarity"] = torch.stack([similarity(each, t) for each in students]).mean()
    if objective.lexical:
        found["lexical"] = lexical(_there(student.weights), _there(teacher.weights), spoken)
    if objective.multi_vector:
        found["multi_vector"] = tokens(_there(student.vectors), _there(teacher.vectors), spoken)
    if objective.hidden:
        found["hidden"] = tokens(_there(student.hidden), _there(teacher.hidden), spoken)
    if objective.layers:
        pairs = list(zip(student.layers, teacher.layers, strict=True))
        found["layers"] = torch.stack([tokens(s, t, spoken) for s, t in pairs]).mean()
    return found


def total(objective: Objective, found: Mapping[str, Tensor]) -> Tensor:
    weights = objective.weights()
    return torch.stack([weights[name] * term for name, term in found.items()]).sum()


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """mean over texts of 1 - cos(s_i, t_i). (n, dim) both, unit norm."""
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
    before the relu.

    Taken per position, before the maximum over equal tokens: nothing as wide as the vocabulary is made.
    Where the teacher has a weight, the student's counts as it is below zero too: the relu has no
    gradient there, and a token that had fallen silent would stay so.
    """
    s, t = student[spoken], torch.relu(teacher[spoken])
    if len(t) < 2:
        return student.sum() * 0.0
    s = torch.where(t > 0, s, torch.relu(s))
    return F.mse_loss(s, t) / t.var(correction=0).clamp_min(1e-6)


def tokens(student: Tensor, teacher: Tensor, spoken: Tensor) -> Tensor:
    """mean over tokens of 1 - cos(v_s, v_t). (t, width) each."""
    s, t = student[spoken], teacher[spoken]
    if not len(t):
        return student.sum() * 0.0
    return (1.0 - F.cosine_similarity(s.float(), t.float(), dim=-1)).mean()


def _prefixes(student: Tensor, teacher: Tensor, widths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Both, and the first components of both at unit norm: Matryoshka, Kusupati et al. 2022
    (arXiv:2205.13147)."""
    cuts = [width for width in widths if width < student.shape[1]]
    shorter = [tuple(F.normalize(x[:, :width], dim=-1) for x in (student, teacher)) for width in cuts]
    return [(student, teacher), *shorter]  # type: ignore[list-item]


def _there(output: Tensor | None) -> Tensor:
    assert output is not None, "a term is weighted whose head is missing"
    return output


def describe(objective: Objective) -> dict[str, Any]:
    """For the certificate: the terms that counted, with their weights."""
    used: dict[str, Any] = {name: weight for name, weight in objective.weights().items() if weight}
    return {**used, "matryoshka": list(objective.matryoshka)} if objective.matryoshka else used
