"""One model on one device: encodes packs into arrays, with two packs in flight on CUDA."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from m3index.encoder import backbone, csr, heads, int8, packing
from m3index.encoder.attention import Spans
from m3index.encoder.backbone import Backbone
from m3index.encoder.hardware import Precision, bytes_per_token, token_budget, wider
from m3index.encoder.layout import Layout, hidden_size, position_padding
from m3index.encoder.packing import Pack
from m3index.errors import M3IndexError, MismatchError
from m3index.types import FloatArray, IntArray, SparseRows

_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requested outputs. skip: how many leading tokens (a prompt) the pooling leaves out."""

    lexical: bool
    multi_vector: bool
    skip: int = 0


@dataclass(frozen=True, slots=True)
class PackResult:
    """places: the indices of the inputs in the call. The other fields hold one row per input, in order."""

    places: NDArray[np.int64]
    dense: FloatArray
    lexical: SparseRows | None
    multi_vector: list[FloatArray] | None


@dataclass(frozen=True, slots=True)
class _Flight:
    """A forward pass in progress. Its outputs are complete on the host once `ready` returns."""

    places: NDArray[np.int64]
    pack: Pack
    outputs: dict[str, Tensor]
    ready: Callable[[], None]


class Engine:
    """The weights of one model on one device.

    If a pack's outputs are not finite, the pack runs again in the next wider precision. A pack that does not
    fit into CUDA memory is split in half.
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
        self._backbones: dict[Precision, Backbone] = {}
        self._after = heads.AfterPooling(layout.modules, layout.dim).to(device)
        width = hidden_size(layout.config)
        self._lexical = heads.load_linear(layout.lexical, width, 1).to(device) if layout.lexical else None
        self._multi = (
            heads.load_linear(layout.multi_vector, width, None).to(device) if layout.multi_vector else None
        )
        self._backbone(precision)
        self.budget = token_budget(batch_tokens, device, bytes_per_token(layout.config, precision))

    def run(
        self,
        rows: Sequence[IntArray],
        packs: Iterable[NDArray[np.int64]],
        wanted: Wanted,
    ) -> Iterator[PackResult]:
        """Encodes rows[i] for each i of each pack, and yields results in the order of the packs.

        On CUDA the host prepares inputs and collects outputs while two forward passes are in progress.
        """
        depth = _IN_FLIGHT if self.device.type == "cuda" else 0
        flights: deque[_Flight] = deque()
        for places in packs:
            pack = packing.pack([rows[i] for i in places], self._padding)
            try:
                flights.append(self._launch(places, pack, wanted, self.precision))
            except torch.cuda.OutOfMemoryError:
                while flights:
                    yield self._collect(flights.popleft(), wanted)
                yield from self._run_split(rows, places, wanted)
            while len(flights) > depth:
                yield self._collect(flights.popleft(), wanted)
        while flights:
            yield self._collect(flights.popleft(), wanted)

    def hidden(self, pack: Pack) -> Tensor:
        """The last hidden states of a pack on the device, (t, width)."""
        with torch.inference_mode():
            inputs = self._inputs(pack)
            return self._backbone(self.precision)(*inputs)

    def _run_split(
        self, rows: Sequence[IntArray], places: NDArray[np.int64], wanted: Wanted
    ) -> Iterator[PackResult]:
        torch.cuda.empty_cache()
        if len(places) == 1:
            raise M3IndexError(
                f"{self.device} does not have enough memory for one input of {len(rows[places[0]])} tokens. "
                "Use shorter texts, another --device, or a smaller model."
            )
        middle = len(places) // 2
        yield from self.run(rows, [places[:middle], places[middle:]], wanted)

    def _backbone(self, precision: Precision) -> Backbone:
        if precision not in self._backbones:
            self._backbones[precision] = (
                int8.load(self._layout, trust_remote_code=self._trust)
                if precision == "int8"
                else backbone.load(
                    self._layout,
                    precision,
                    self.device,
                    trust_remote_code=self._trust,
                    prepare=self._prepare and precision == self.precision,
                )
            )
        return self._backbones[precision]

    def _inputs(self, pack: Pack) -> tuple[Tensor, Tensor, Tensor | None, Spans]:
        ids, positions, cumulative = (self._to_device(x) for x in (pack.ids, pack.positions, pack.bounds))
        types = None if pack.types is None else self._to_device(pack.types)
        return ids, positions, types, Spans.of(pack, cumulative)

    def _to_device(self, array: IntArray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _launch(self, places: NDArray[np.int64], pack: Pack, wanted: Wanted, precision: Precision) -> _Flight:
        with torch.inference_mode(), self._on_device():
            ids, positions, types, spans = self._inputs(pack)
            hidden = self._backbone(precision)(ids, positions, types, spans)
            pooled = heads.pool(hidden, spans.cumulative, self._layout.pooling, wanted.skip)
            outputs = {"dense": self._after(pooled)}
            if wanted.lexical and self._lexical is not None:
                outputs["lexical"] = torch.relu(self._lexical(hidden.float())).squeeze(-1)
            if wanted.multi_vector and self._multi is not None:
                outputs["multi_vector"] = F.normalize(self._multi(hidden.float()), dim=-1)
            return self._to_host(places, pack, outputs)

    def _on_device(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.device(self.device) if self.device.type == "cuda" else contextlib.nullcontext()

    def _to_host(self, places: NDArray[np.int64], pack: Pack, outputs: dict[str, Tensor]) -> _Flight:
        if self.device.type != "cuda":
            return _Flight(places, pack, {k: v.cpu() for k, v in outputs.items()}, _nothing)
        hosts = {
            k: torch.empty(v.shape, dtype=v.dtype, pin_memory=True).copy_(v, non_blocking=True)
            for k, v in outputs.items()
        }
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        return _Flight(places, pack, hosts, done.synchronize)

    def _collect(self, flight: _Flight, wanted: Wanted) -> PackResult:
        flight.ready()
        precision = self.precision
        while not all(np.isfinite(t.numpy()).all() for t in flight.outputs.values()):
            next_wider = wider(precision, self.device)
            if next_wider is None:
                raise MismatchError(
                    f"{self._layout.root}: the model's output is not finite in {precision}. Its weights are "
                    f"damaged, or it is not a text model. Download it again or use another model."
                )
            precision = next_wider
            flight = self._launch(flight.places, flight.pack, wanted, precision)
            flight.ready()
        pack, outputs = flight.pack, flight.outputs
        lexical = multi = None
        if "lexical" in outputs:
            lexical = csr.lexical_rows(outputs["lexical"].numpy(), pack.ids, pack.bounds, self._silent)
        if "multi_vector" in outputs:
            vectors = outputs["multi_vector"].numpy()
            spans = zip(pack.bounds[:-1].tolist(), pack.bounds[1:].tolist(), strict=True)
            multi = [vectors[start + 1 : end] for start, end in spans]
        return PackResult(flight.places, outputs["dense"].numpy(), lexical, multi)


def _nothing() -> None:
    return
