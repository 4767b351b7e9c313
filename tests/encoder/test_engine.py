"""What happens when a forward overflows, or does not fit."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encoder.copies import record_copies
from m3index.encoder import engine as engines
from m3index.encoder import hardware, layout
from m3index.encoder.base import Wanted
from m3index.encoder.engine import Engine
from m3index.encoder.load import load
from m3index.errors import M3IndexError, MismatchError

TEXTS = ["the quick brown fox", "a", "der Fuchs liest ein Buch", "the book the book"]


@pytest.mark.parametrize("wider", ["bf16", "fp32"])
def test_a_pack_that_overflows_fp16_is_done_again_in_what_the_device_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wider: str
) -> None:
    monkeypatch.setattr(hardware, "cpu_computes_bf16", lambda: wider == "bf16")
    path = models.overflow(models.write_m3(tmp_path, hidden_act="relu"))
    encoder = load(str(path), precision="fp16")
    got = encoder.encode_documents(TEXTS)
    expected = load(str(path), precision="fp32").encode_documents(TEXTS)
    assert np.isfinite(got.dense).all()
    assert ((got.dense * expected.dense).sum(1) > 0.99).all()
    assert encoder._engines is not None
    assert list(encoder._engines[0]._backbones._models) == ["fp16", wider]


def test_weights_that_are_not_finite_are_an_error_not_a_vector(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    tensors = load_file(str(path / "model.safetensors"))
    tensors["encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(MismatchError, match="not finite"):
        load(str(path), precision="bf16").encode_documents(TEXTS)


class Tight:
    """A device with room for `room` tokens at a time."""

    def __init__(self, backbone: Callable[..., Any], room: int) -> None:
        self.backbone, self.room, self.seen = backbone, room, []  # type: ignore[var-annotated]

    def __call__(self, ids: torch.Tensor, *rest: Any) -> Any:
        self.seen.append(len(ids))
        if len(ids) > self.room:
            raise torch.cuda.OutOfMemoryError("not real")
        return self.backbone(ids, *rest)


def tighten(monkeypatch: pytest.MonkeyPatch, room: int) -> list[Tight]:
    made: list[Tight] = []
    original = engines.backbone.load

    def patched(*args: Any, **options: Any) -> Tight:
        made.append(Tight(original(*args, **options), room))
        return made[-1]

    monkeypatch.setattr(engines.backbone, "load", patched)
    return made


def test_a_pack_that_does_not_fit_is_halved(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(str(m3), precision="fp32").encode_documents(TEXTS * 4)
    made = tighten(monkeypatch, 20)
    got = load(str(m3), precision="fp32").encode_documents(TEXTS * 4)
    np.testing.assert_allclose(got.dense, expected.dense, atol=1e-6)
    assert got.lexical is not None
    assert expected.lexical is not None
    np.testing.assert_array_equal(got.lexical.indices, expected.lexical.indices)
    assert max(made[0].seen) > 20


def test_one_input_that_does_not_fit_says_so(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tighten(monkeypatch, 5)
    with pytest.raises(M3IndexError, match=r"memory for one input of \d+ tokens"):
        load(str(m3), precision="fp32").encode_documents(TEXTS)


def test_nothing_of_a_pack_that_did_not_fit_stays_in_memory(
    m3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback of an exception that is being handled would keep the activations of every level."""
    activations: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    original = engines.backbone.load

    def patched(*args: Any, **options: Any) -> Any:
        inner = original(*args, **options)

        def forward(ids: torch.Tensor, *rest: Any) -> Any:
            alive.append(sum(tensor() is not None for tensor in activations))
            if len(ids) > 20:
                states = torch.zeros(len(ids), 8)
                activations.append(weakref.ref(states))
                raise torch.cuda.OutOfMemoryError("not real")
            return inner(ids, *rest)

        return forward

    monkeypatch.setattr(engines.backbone, "load", patched)
    load(str(m3), precision="fp32").encode_documents(TEXTS * 8)
    assert len(activations) > 3
    assert set(alive) == {0}


def test_a_pack_that_overflows_and_then_does_not_fit_is_halved_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.overflow(models.write_m3(tmp_path, hidden_act="relu"))
    expected = load(str(path), precision="fp32").encode_documents(TEXTS)
    original = engines.backbone.load

    def patched(layout: Any, precision: str, *args: Any, **options: Any) -> Any:
        return Tight(original(layout, precision, *args, **options), 10**9 if precision == "fp16" else 12)

    monkeypatch.setattr(engines.backbone, "load", patched)
    got = load(str(path), precision="fp16").encode_documents(TEXTS)
    assert ((got.dense * expected.dense).sum(1) > 0.99).all()


def test_other_errors_of_a_forward_are_not_taken_for_full_memory(
    m3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def forward(*_: Any) -> Any:
            raise RuntimeError("a bug")

        return forward

    monkeypatch.setattr(engines.backbone, "load", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        load(str(m3)).encode_documents(TEXTS)


def test_memory_is_a_matter_of_the_budget_not_of_the_corpus(
    m3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tighten(monkeypatch, 10**9)
    load(str(m3), precision="fp32", batch_tokens=64).encode_documents(TEXTS * 200)
    assert max(made[0].seen) <= 64
    assert sum(made[0].seen) == sum(load(str(m3)).encode_documents(TEXTS).tokens) * 200


@pytest.mark.parametrize(("device", "ahead"), [("cpu", False), ("cuda:0", True)])
def test_a_cuda_device_plans_several_packs_together_and_has_the_next_one_before_the_last_is_done(
    m3: Path, monkeypatch: pytest.MonkeyPatch, device: str, ahead: bool
) -> None:
    """On a CPU, vectors do not depend on the calls around, and no pack waits for another."""
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, _: self)
    monkeypatch.setattr(engines.backbone, "load", lambda *_, **__: None)
    silent = np.zeros(0, np.int32)
    engine = Engine(layout.read(m3), torch.device(device), "fp32", batch_tokens=64, silent_ids=silent)
    assert engine.wave_tokens == (4 * 64 if ahead else 0)
    assert engine.lane(Wanted())._depth == (2 if ahead else 0)


def test_every_copy_of_a_pack_is_one_that_nothing_waits_for(
    m3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`encoder.transfer` copies through page-locked memory. One event says that all outputs are there."""
    seen = record_copies(monkeypatch, engines)
    load(str(m3), precision="fp32").encode_documents(TEXTS, multi_vector=True)
    assert seen == ["in", "in", "in", 3, "awaited"]
