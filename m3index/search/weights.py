"""Reads weights as users write them."""

from __future__ import annotations

from collections.abc import Mapping

M3_WEIGHTS: Mapping[str, float] = {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}
"""The example of BGE-M3's authors in FlagEmbedding's `compute_score`."""


def read_weights(value: object) -> dict[str, float]:
    """`dense=0.7,sparse=0.3`, or a mapping -> {"dense": 0.7, "sparse": 0.3}. Raises ValueError."""
    if isinstance(value, str):
        value = dict(map(_weight, value.split(",")))
    if not isinstance(value, Mapping) or not value:
        raise ValueError
    for name, weight in value.items():
        if not isinstance(name, str) or isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError
    return {name: float(weight) for name, weight in value.items()}


def _weight(text: str) -> tuple[str, float]:
    name, equals, weight = text.partition("=")
    if not equals or not name.strip():
        raise ValueError
    return name.strip(), float(weight)
