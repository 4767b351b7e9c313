"""One model on one device: encodes packs into arrays, with packs in flight on CUDA."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from m3index.encoder import backbone, csr, heads, int8, memory, packing
from m3index.encoder.attention import Spans
from m3index.encoder.backbone import Backbone
from m3index.encoder.base import Wanted
from m3index.encoder.hardware import Precision, bytes_per_token, token_budget
from m3index.encoder.layout import Layout, hidden_size, position_padding
from m3index.encoder.packing import Pack
from m3index.encoder.transfer import to_device, to_host
from m3index.encoder.widening import Widening
from m3index.types import FloatArray, IntArray, SparseRows

_IN_FLIGHT = 2
_WAVE_PACKS = 4


@dataclass(frozen=True, slots=True)
class Job:
    """The inputs of one forward pass. places: their numbers, which the caller assigns."""

    places: NDArray[np.int64]
    rows: Sequence[IntArray]

    def part(self, chosen: NDArray[np.int64]) -> Job:
        return Job(self.places[chosen], [self.rows[i] for i in chosen])


@dataclass(frozen=True, slots=True)
class PackResult:
    """places: those of the job, or of a part of it. The other fields hold one row per input, in order."""

    places: NDArray[np.int64]
    dense: FloatArray
    lexical: SparseRows | None
    multi_vector: list[FloatArray] | None


@dataclass(frozen=True, slots=True)
class _Flight:
    """A forward pass in progress. Its outputs are complete on the host once `ready` returns."""

    job: Job
    pack: Pack
    precision: Precision
    outputs: dict[str, Tensor]
    ready: Callable[[], None]


class Engine:
    """The weights of one model on one device.

    budget: the most tokens of one pack. wave_tokens: how many tokens of the stream are planned together, so
    that packs are full; 0 plans each call by itself, so that a text's vectors do not depend, bit for bit, on
    the calls around it.
    """

    def __init__(
        self,
        layout: Layout,
        device: torch.device,
        precision: Precision,
        *,
        batch_tokens: str | int = "auto",
        silent_ids: IntArray,
        trust_remote_code: bool = False,
        prepare: bool = False,
    ) -> None:
        """prepare: see `backbone.load`; only in this precision, not in a wider one that a pack may need."""
        self.device, self.precision = device, precision
        self._layout, self._trust, self._prepare = layout, trust_remote_code, prepare
        self._silent = silent_ids
        self._padding = position_padding(layout.config)
        self._after = heads.AfterPooling(layout.modules, layout.dim).to(device)
        width = hidden_size(layout.config)
        self._lexical = heads.load_linear(layout.lexical, width, 1).to(device) if layout.lexical else None
        self._multi = (
            heads.load_linear(layout.multi_vector, width, None).to(device) if layout.multi_vector else None
        )
        self._backbones = Widening(self._load, precision, device, str(layout.root))
        self.budget = token_budget(batch_tokens, device, bytes_per_token(layout.config, precision))
        self.wave_tokens = _WAVE_PACKS * self.budget if device.type == "cuda" else 0

    def lane(self, wanted: Wanted) -> Lane:
        """A sequence of packs on this device."""
        return Lane(self, wanted, _IN_FLIGHT if self.device.type == "cuda" else 0)

    def launch(self, job: Job, wanted: Wanted, precision: Precision) -> Iterator[_Flight]:
        """Begins the forward pass of a job, or of its parts if memory does not suffice for all of it."""
        yield from memory.in_parts(
            lambda places: self._forward(job.part(places), wanted, precision),
            np.arange(len(job.rows)),
            lambda place: memory.no_room(self.device, len(job.rows[place])),
        )

    def results(self, flight: _Flight, wanted: Wanted) -> Iterator[PackResult]:
        """Waits for a forward pass. Outputs that are not finite are computed again in the next wider
        precision. Raises MismatchError if there is none."""
        flight.ready()
        if all(np.isfinite(t.numpy()).all() for t in flight.outputs.values()):
            yield self._result(flight)
            return
        for again in self.launch(flight.job, wanted, self._backbones.wider(flight.precision)):
            yield from self.results(again, wanted)

    def _load(self, precision: Precision) -> Backbone:
        if precision == "int8":
            return int8.load(self._layout, trust_remote_code=self._trust)
        return backbone.load(
            self._layout,
            precision,
            self.device,
            trust_remote_code=self._trust,
            prepare=self._prepare and precision == self.precision,
        )

    def _forward(self, job: Job, wanted: Wanted, precision: Precision) -> _Flight:
        pack = packing.pack(job.rows, self._padding)
        with torch.inference_mode(), self._on_device():
            ids, positions, bounds = (
                to_device(x, self.device) for x in (pack.ids, pack.positions, pack.bounds)
            )
            hidden = self._backbones.in_(precision)(ids, positions, None, Spans.of(pack, bounds))
            pooled = heads.pool(hidden, bounds, self._layout.pooling, wanted.skip)
            outputs = {"dense": self._after(pooled)}
            if wanted.lexical and self._lexical is not None:
                outputs["lexical"] = torch.relu(self._lexical(hidden.float()).squeeze(-1))
            if wanted.multi_vector and self._multi is not None:
                outputs["multi_vector"] = F.normalize(self._multi(hidden.float()), dim=-1)
            hosts, ready = to_host(list(outputs.values()))
        return _Flight(job, pack, precision, dict(zip(outputs, hosts, strict=True)), ready)

    def _on_device(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()

    def _result(self, flight: _Flight) -> PackResult:
        pack, outputs = flight.pack, {name: t.numpy() for name, t in flight.outputs.items()}
        lexical = multi = None
        if "lexical" in outputs:
            lexical = csr.lexical_rows(outputs["lexical"], pack.ids, pack.bounds, self._silent)
        if "multi_vector" in outputs:
            spans = zip(pack.bounds[:-1].tolist(), pack.bounds[1:].tolist(), strict=True)
            # Copies: a view of one input would keep the output of the whole pack in (page-locked) memory.
            multi = [outputs["multi_vector"][start + 1 : end].copy() for start, end in spans]
        return PackResult(flight.job.places, outputs["dense"], lexical, multi)


class Lane:
    """Jobs in flight on one device: on CUDA the host prepares inputs and collects outputs meanwhile."""

    def __init__(self, engine: Engine, wanted: Wanted, depth: int) -> None:
        self._engine, self._wanted, self._depth = engine, wanted, depth
        self._flights: deque[_Flight] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._flights)

    def put(self, job: Job) -> Iterator[PackResult]:
        """Begins a job. Yields results of earlier ones, so that no more than `depth` stay in flight."""
        for flight in self._engine.launch(job, self._wanted, self._engine.precision):
            self._flights.append(flight)
            while len(self._flights) > self._depth:
                yield from self.collect()

    def collect(self) -> Iterator[PackResult]:
        """Waits for the oldest job in flight."""
        yield from self._engine.results(self._flights.popleft(), self._wanted)
