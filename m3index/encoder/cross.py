"""Cross-encoders such as BAAI/bge-reranker-v2-m3, which map a query and a text to one score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m3index.encoder import backbone, hardware, layout, packing
from m3index.encoder.attention import Spans
from m3index.encoder.backbone import Backbone
from m3index.encoder.hardware import Precision
from m3index.encoder.memory import Places, in_parts, no_room
from m3index.encoder.source import locate
from m3index.encoder.tokens import ModelTokenizer
from m3index.encoder.transfer import to_device, to_host
from m3index.encoder.widening import Widening
from m3index.errors import MismatchError, UsageError
from m3index.types import FloatArray, IntArray

# Pinned to the commit that the model card describes; other cross-encoders use their newest commit.
_REVISIONS = {"BAAI/bge-reranker-v2-m3": "953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e"}
_CLASSIFIERS = ("xlm-roberta", "roberta", "camembert", "bert")


class CrossEncoder:
    """A sequence classifier of the BERT or RoBERTa family with one label.

    A pack whose scores are not finite runs again in the next wider precision, and one that does not fit into
    memory in halves.
    """

    def __init__(
        self, name: str, directory: Path, *, device: str = "auto", precision: str = "auto",
        batch_tokens: int | str = "auto",
    ) -> None:  # fmt: skip
        self.name = name
        self._layout = layout.read(directory)
        if self._layout.model_type not in _CLASSIFIERS:
            raise UsageError(
                f"{name}: cross-encoders of type {self._layout.model_type!r} are not supported. "
                f"Use one of type {', '.join(_CLASSIFIERS)}."
            )
        self._padding = layout.position_padding(self._layout.config)
        self._tokenizer = ModelTokenizer(self._layout)
        self._device = hardware.devices(device)[0]
        chosen = hardware.precision(precision, self._device)
        self._models = Widening(self._load, chosen, self._device, name)
        self._budget = hardware.token_budget(
            batch_tokens, self._device, hardware.bytes_per_token(self._layout.config, chosen)
        )

    @classmethod
    def load(
        cls, name: str, *, device: str = "auto", precision: str = "auto", revision: str | None = None
    ) -> CrossEncoder:
        """Loads a hub id or directory. Raises ModelNotFoundError, MismatchError for other kinds of models."""
        source = locate(name, revision=revision or _REVISIONS.get(name))
        return cls(name, source.directory, device=device, precision=precision)

    @property
    def limit(self) -> int:
        """The maximum number of tokens of query and text together, including special tokens."""
        return self._layout.limit

    def score(self, query: str, texts: Sequence[str]) -> FloatArray:
        """The model's raw score (a logit) for each text: (n,) float32, higher is better.

        If a pair is longer than the limit, windows of its text are scored and the best window counts, so no
        text is truncated. Raises UsageError if the query leaves no room for a text.
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
        # An empty text gives the tokens around the text: one of them follows it, all others precede it.
        overhead = len(self._tokenizer.pair_ids(query, [""])[0][0])
        room, start = self.limit - overhead, overhead - 1
        if room < 1:
            raise UsageError(
                f"The query takes {overhead} of the {self.limit} tokens of {self.name}. Shorten the query."
            )
        return [
            (_window(ids, start, at, room), _window(types, start, at, room))
            for at in range(start, len(ids) - 1, room)
        ]

    def _load(self, precision: Precision) -> _Classifier:
        model = backbone.load_model(self._layout, precision, classifier=True)
        if model.config.num_labels != 1:
            raise MismatchError(
                f"{self.name} has {model.config.num_labels} labels, but a cross-encoder has one."
            )
        return _Classifier(backbone.of_model(model.base_model, self._device), _Head(model, self._device))

    def _forward(self, inputs: Sequence[tuple[IntArray, IntArray]]) -> FloatArray:
        scores = np.empty(len(inputs), np.float32)
        lengths = np.array([len(ids) for ids, _ in inputs], np.int32)
        packs, precision = packing.plan(lengths, self._budget), self._models.precision
        while packs:
            model = self._models.in_(precision)
            # All packs are launched before any score is awaited.
            flights = [
                flight
                for places in packs
                for flight in in_parts(
                    lambda part, model=model: self._launch(model, inputs, part),  # type: ignore[misc]
                    places,
                    lambda place: no_room(self._device, int(lengths[place])),
                )
            ]
            for flight in flights:
                flight.ready()
                scores[flight.places] = flight.scores.numpy()
            packs = [flight.places for flight in flights if not np.isfinite(scores[flight.places]).all()]
            if packs:
                precision = self._models.wider(precision)
        return scores

    def _launch(
        self, model: _Classifier, inputs: Sequence[tuple[IntArray, IntArray]], places: Places
    ) -> _ScoredPack:
        pack = packing.pack([inputs[i][0] for i in places], self._padding, [inputs[i][1] for i in places])
        with torch.inference_mode():
            ids, positions, bounds = (
                to_device(x, self._device) for x in (pack.ids, pack.positions, pack.bounds)
            )
            kinds = None if pack.types is None else to_device(pack.types, self._device)
            hidden = model.backbone(ids, positions, kinds, Spans.of(pack, bounds))
            (scores,), ready = to_host([model.head(hidden[bounds[:-1].long()]).float()])
        return _ScoredPack(places, scores, ready)


@dataclass(frozen=True, slots=True)
class _ScoredPack:
    """Scores on their way to the host, which are complete once `ready` returns."""

    places: Places
    scores: Tensor
    ready: Callable[[], None]


def _window(row: IntArray, start: int, at: int, room: int) -> IntArray:
    """row[at : at + room], between the tokens that precede the text and the last token."""
    return np.concatenate([row[:start], row[at : min(at + room, len(row) - 1)], row[-1:]])


@dataclass(frozen=True, slots=True)
class _Classifier:
    backbone: Backbone
    head: _Head


class _Head:
    """State of the first token -> logit. RoBERTa: dense, tanh, projection. BERT: pooler, projection."""

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
