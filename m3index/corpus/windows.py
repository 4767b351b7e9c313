"""Documents -> passages: windows cut at token boundaries. Nothing is ever dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from m3index.types import IntArray


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised text.

    ids: (n,) int32. offsets: (n, 2) int32, the characters [start, end) of the text that each token
    covers; special tokens and the prompt have (0, 0).
    """

    ids: IntArray
    offsets: NDArray[np.int32]


class Tokenizer(Protocol):
    """What the windows need of a model's tokenizer; encoder/ has the real one."""

    @property
    def limit(self) -> int:
        """The most tokens of one input that the model takes, special tokens and prompt included."""
        ...

    @property
    def reserve(self) -> int:
        """How many of them the special tokens and the document prompt take."""
        ...

    def documents(self, texts: Sequence[str]) -> list[Tokens]:
        """Tokenises texts as documents: prompt and special tokens in, nothing truncated."""
        ...
