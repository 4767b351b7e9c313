"""Cross-encoders such as BAAI/bge-reranker-v2-m3: query and text in one input, one score out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m3index.encoder import backbone, hardware, layout, packing
from m3index.encoder.attention import Spans
from m3index.encoder.source import locate
from m3index.encoder.tokens import ModelTokenizer
from m3index.errors import MismatchError, UsageError
from m3index.types import FloatArray, IntArray

# The commit that the model's card is about; other cross-encoders are taken at their newest.
_REVISIONS = {"BAAI/bge-reranker-v2-m3": "953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e"}
_CLASSIFIERS = ("xlm-roberta", "roberta", "camembert", "bert")


class CrossEncoder:
    """A sequence classifier of the BERT or RoBERTa family with one label."""

    def __init__(
        self, name: str, directory: Path, *, device: str = "auto", precision: str = "auto",
        batch_tokens: int | str = "auto",
    ) -> None:  # fmt: skip
        self.name = name
        self._layout = layout.read(directory)
        if self._layout.model_type not in _CLASSIFIERS:
            raise UsageError(
                f"{name}: cross-encoders of type {self._layout.model_type!r} are not supported; "
                f"{', '.join(_CLASSIFIERS)} are."
            )
        self._padding = layout.position_padding(self._layout.config)
        self._tokenizer = ModelTokenizer(self._layout)
        self._device = hardware.devices(device)[0]
        chosen = hardware.precision(precision, self._device)
        model = backbone.load_model(self._layout, chosen, classifier=True)
        if model.config.num_labels != 1:
            raise MismatchError(f"{name} has {model.config.num_labels} labels; a cross-encoder has one.")
        self._typed = int(self._layout.config.get("type_vocab_size", 1)) > 1
        self._head = _Head(model, self._device)
        self._backbone = backbone.of_model(model.base_model, self._device)
        self._budget = hardware.token_budget(
            batch_tokens, self._device, hardware.bytes_per_token(self._layout.config, chosen)
        )

    @classmethod
    def load(
        cls, name: str, *, device: str = "auto", precision: str = "auto", revision: str | None = None
    ) -> CrossEncoder:
        """By hub id or directory. Raises ModelNotFoundError, MismatchError where it is no cross-encoder."""
        source = locate(name, revision=revision or _REVISIONS.get(name))
        return cls(name, source.directory, device=device, precision=precision)

    @property
    def limit(self) -> int:
        """The most tokens of query and text together, special tokens counted."""
        return self._layout.limit

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """The model's raw score (a logit) of each text for the query: (n,) float32, higher is better.

        A pair longer than the limit is scored in windows of its text, and the best window counts:
        nothing is cut. A query that leaves no room for a text is a UsageError.
        """
        if not len(texts):
            return np.zeros(0, np.float32)
        owners: list[int] = []
        inputs: list[tuple[IntArray, IntArray]] = []
        for i, (ids, types) in enumerate(self._tokenizer.pair_ids(query, texts)):
            for window in self._windows(query, ids, types):
                owners.append(i)
                inputs.append(window)
        scores = self._forward(inputs)
        best = np.full(len(texts), -np.inf, np.float32)
        np.maximum.at(best, owners, scores)
        return best

    def _windows(self, query: str, ids: IntArray, types: IntArray) -> list[tuple[IntArray, IntArray]]:
        if len(ids) <= self.limit:
            return [(ids, types)]
        # What stands around the text is what stands around an empty one: all before it, one token after.
        around = len(self._tokenizer.pair_ids(query, [""])[0][0])
        room, start = self.limit - around, around - 1
        if room < 1:
            raise UsageError(
                f"The query takes {around} of the {self.limit} tokens of {self.name}: shorten it."
            )
        return [
            (_window(ids, start, at, room), _window(types, start, at, room))
            for at in range(start, len(ids) - 1, room)
        ]

    def _forward(self, inputs: Sequence[tuple[IntArray, IntArray]]) -> FloatArray:
        scores = np.empty(len(inputs), np.float32)
        lengths = np.array([len(ids) for ids, _ in inputs], np.int32)
        for places in packing.plan(lengths, self._budget):
            pack = packing.pack([inputs[i][0] for i in places], self._padding, [inputs[i][1] for i in places])
            with torch.inference_mode():
                ids, positions, bounds = (
                    torch.from_numpy(x).to(self._device) for x in (pack.ids, pack.positions, pack.bounds)
                )
                kinds = None if pack.types is None else torch.from_numpy(pack.types).to(self._device)
                hidden = self._backbone(ids, positions, kinds, Spans.of(pack, bounds))
                scores[places] = self._head(hidden[bounds[:-1].long()]).float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise MismatchError(f"{self.name}: a score is not finite; try --precision fp32.")
        return scores


def _window(row: IntArray, start: int, at: int, room: int) -> IntArray:
    """row[at : at + room] of the text, between what stands before it and the last token."""
    return np.concatenate([row[:start], row[at : min(at + room, len(row) - 1)], row[-1:]])


class _Head:
    """First token's state -> logit. RoBERTa: dense, tanh, projection; BERT: the pooler, projection."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._classifier = model.classifier.to(device)
        self._pooler = model.base_model.pooler
        if self._pooler is not None:
            self._pooler = self._pooler.to(device)

    def __call__(self, first: Tensor) -> Tensor:
        """(n, width) -> (n,)"""
        row = first[:, None]
        out: Tensor = self._classifier(row if self._pooler is None else self._pooler(row))
        return out.squeeze(-1)
