"""Weights as people write them."""

from __future__ import annotations

from m3index.errors import UsageError


def parse_weights(text: str) -> dict[str, float] | None:
    """`dense=0.7,sparse=0.3` -> {"dense": 0.7, "sparse": 0.3}; nothing -> None. Raises UsageError."""
    if not text.strip():
        return None
    parsed: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            parsed[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise UsageError(f"Weights are written dense=0.7,sparse=0.3; {part.strip()!r} is not.")
    return parsed
