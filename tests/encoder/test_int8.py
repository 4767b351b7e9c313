"""int8 products on the CPU, against float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from m3index.encoder import hardware, int8
from m3index.encoder import layout as layouts
from m3index.encoder.cross import CrossEncoder
from m3index.encoder.load import load
from m3index.encoder.model import ModelEncoder
from m3index.errors import MismatchError, UsageError

needs_vnni = pytest.mark.skipif(not hardware.cpu_multiplies_int8(), reason="this CPU has no int8 products")
TEXTS = [
    "the quick brown fox",
    "a",
    "der Fuchs liest ein Buch",
    "the book the book",
    "the sea",
    "a fox",
    "x y",
]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(weight: torch.Tensor, x: torch.Tensor, balance: torch.Tensor | None = None) -> int8.Int8Linear:
    balance = torch.ones(weight.shape[1]) if balance is None else balance
    return int8.Int8Linear(weight, torch.zeros(len(weight)), x.abs().amax(0), balance)


# ------------------------------------------------------------------ products


@needs_vnni
@pytest.mark.parametrize(
    ("inputs", "outputs", "tokens"), [(32, 96, 1), (64, 8, 7), (1024, 64, 300), (36, 5, 3)]
)
def test_a_product_is_within_the_rounding_of_both_sides(inputs: int, outputs: int, tokens: int) -> None:
    weight, bias, x = random(outputs, inputs), random(outputs), random(tokens, inputs, seed=1)
    exact = x @ weight.T + bias
    mine = int8.Int8Linear(weight, bias, x.abs().amax(0), torch.ones(inputs))
    # Half a step on each side, of the greatest magnitude over 127, in each of the products summed.
    steps = x.abs().amax(1, keepdim=True) * weight.abs().amax(1) / 127
    assert ((mine.plain(x) - exact).abs() <= steps * inputs**0.5 * 2).all()
    residual = random(tokens, outputs, seed=2)
    torch.testing.assert_close(mine.added(x, residual), mine.plain(x) + residual)
    torch.testing.assert_close(mine.activated(x, "gelu"), torch.nn.functional.gelu(mine.plain(x)))


@needs_vnni
def test_a_loud_channel_costs_the_others_nothing() -> None:
    weight = random(64, 256)
    quiet = random(50, 256, seed=1)
    loud = quiet.clone()
    loud[:, 17] *= 8
    errors = []
    for x in (quiet, loud):
        exact = x @ weight.T
        errors.append(float((linear(weight, x).plain(x) - exact).square().mean().sqrt()))
    assert errors[1] < 1.3 * errors[0]
    unsplit = int8.Int8Linear(weight, torch.zeros(64), torch.ones(256), torch.ones(256))
    assert float((unsplit.plain(loud) - loud @ weight.T).square().mean().sqrt()) > 1.8 * errors[1]


@needs_vnni
def test_the_parts_of_a_channel_add_up_to_the_step_of_the_token() -> None:
    x = random(40, 128)
    x[:, 5] *= 9
    mine = linear(torch.eye(128), x)
    step = float(x.abs().amax(0).median()) / 126.5  # coarser than that of the split channels
    assert float((mine.plain(x) - x).abs().max()) < step
    assert float(x[:, 5].abs().max()) / 126.5 > 2 * step  # what it would be for the channel whole


@needs_vnni
def test_a_balance_changes_the_rounding_alone() -> None:
    weight, x = random(16, 64), random(20, 64, seed=1)
    balance = random(64, seed=2).abs() + 0.5
    np.testing.assert_allclose(linear(weight, x, balance).plain(x), x @ weight.T, atol=0.5)


@needs_vnni
def test_a_token_without_anything_and_one_that_is_not_a_number() -> None:
    x = torch.zeros(3, 32)
    x[1] = torch.nan
    x[2] = torch.inf
    got = linear(random(8, 32), torch.ones(1, 32)).plain(x)
    assert (got[0] == 0).all()
    assert not torch.isfinite(got[1:]).any()


@settings(deadline=None, max_examples=60)
@given(
    peaks=st.lists(st.floats(0, 1e4, width=32), min_size=4, max_size=40),
    room=st.integers(0, 20),
)
def test_splitting_stays_within_its_room_and_never_makes_a_part_greater(
    peaks: list[float], room: int
) -> None:
    peak = torch.tensor(peaks)
    parts = int8._parts(peak, room)
    assert int(parts.min()) >= 1
    assert int(parts.sum()) - len(peaks) <= room
    assert float((peak / parts).max()) <= max(peaks)
    if room and len(set(peaks)) == len(peaks) and sorted(peaks)[-1] > 2 * sorted(peaks)[-2]:
        assert int(parts[peak.argmax()]) > 1


# ------------------------------------------------------------------- encoder


@needs_vnni
@pytest.mark.parametrize("shape", [{}, {"hidden_act": "relu"}, {"intermediate_size": 100}])
def test_all_heads_are_near_to_fp32(tmp_path: Path, shape: dict[str, Any]) -> None:
    path = models.write_m3(tmp_path, **shape)
    texts = [*models.LINES, *TEXTS]
    mine = load(str(path), precision="int8").encode_documents(texts, multi_vector=True)
    exact = load(str(path), precision="fp32").encode_documents(texts, multi_vector=True)
    cosines = (mine.dense * exact.dense).sum(1)
    assert cosines.mean() > 0.999
    assert cosines.min() > 0.995
    assert mine.multi_vector is not None
    assert exact.multi_vector is not None
    for a, b in zip(mine.multi_vector, exact.multi_vector, strict=True):
        assert ((a * b).sum(1) > 0.99).all()
    assert mine.lexical is not None
    assert exact.lexical is not None
    greatest = float(exact.lexical.values.max())
    for i in range(len(texts)):
        a, b = (
            dict(zip(r.indices.tolist(), r.values.tolist(), strict=True))
            for r in (mine.lexical.row(i), exact.lexical.row(i))
        )
        assert all(abs(a.get(t, 0) - b.get(t, 0)) < 0.1 * greatest for t in a | b)


@needs_vnni
def test_bert_and_pickled_weights(bert: Path, tmp_path: Path) -> None:
    path = models.pickle_weights(models.write_m3(tmp_path))
    for model in (bert, path):
        mine = load(str(model), precision="int8").encode_documents(TEXTS, lexical=False).dense
        exact = load(str(model), precision="fp32").encode_documents(TEXTS, lexical=False).dense
        assert ((mine * exact).sum(1) > 0.995).all()


@needs_vnni
def test_a_text_alone_is_the_text_in_a_batch(m3: Path) -> None:
    encoder = load(str(m3), precision="int8")
    together = encoder.encode_documents(TEXTS * 50).dense  # more tokens than one step takes
    alone = np.concatenate([encoder.encode_documents([text]).dense for text in TEXTS])
    assert ((together[: len(TEXTS)] * alone).sum(1) > 1 - 1e-5).all()
    np.testing.assert_allclose(together[-len(TEXTS) :], together[: len(TEXTS)], atol=1e-3)


@needs_vnni
def test_two_encoders_of_a_model_agree_to_the_bit(m3: Path) -> None:
    one, other = (load(str(m3), precision="int8").encode_documents(TEXTS).dense for _ in range(2))
    np.testing.assert_array_equal(one, other)


@needs_vnni
def test_weights_that_are_not_finite_are_an_error_not_a_vector(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    tensors = load_file(str(path / "model.safetensors"))
    tensors["encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(MismatchError, match="not finite"):
        load(str(path), precision="int8").encode_documents(TEXTS)


def test_the_fingerprint_is_of_the_same_space_and_another_encoder(m3: Path) -> None:
    infos = [load(str(m3), precision=name).info for name in ("auto", "fp32", "bf16", "fp16", "int8")]
    assert len({info.space_id for info in infos}) == 1
    assert len({info.encoder_id for info in infos}) == len(infos)


# ------------------------------------------------------------------ refusals


def test_a_cpu_without_vnni_is_told_so(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_multiplies_int8", lambda: False)
    with pytest.raises(UsageError, match="VNNI"):
        load(str(m3), precision="int8").encode_documents(TEXTS)


@needs_vnni
def test_a_decoder_has_no_int8(mistral: Path) -> None:
    with pytest.raises(UsageError, match=r"is a mistral model\. Use auto"):
        load(str(mistral), precision="int8").encode_documents(TEXTS)


@needs_vnni
def test_code_of_the_models_own_has_no_int8(m3: Path) -> None:
    layout = layouts.read(m3)
    layout.config["auto_map"] = {"AutoModel": "own.Model"}  # type: ignore[index]
    with pytest.raises(UsageError, match="code of its own"):
        int8.load(layout, trust_remote_code=True)


def test_a_cross_encoder_has_no_int8(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="for encoding texts only"):
        CrossEncoder("x", models.write_cross_encoder(tmp_path), precision="int8")


# --------------------------------------------------------------------- check


class Coarse(int8.Int8Linear):
    """As if its scales were of another model."""

    def plain(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        y = super().plain(x, out)
        return y.add_(y.std() * 0.4 * random(*y.shape))


@needs_vnni
def test_a_bad_quantisation_is_refused_with_its_figures(m3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "Int8Linear", Coarse)
    encoder = load(str(m3), precision="int8")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"too coarse .* cosine 0\.\d+ \(mean\).* Use --precision auto"):
            encoder.encode_documents([*TEXTS, *TEXTS], lexical=False)
    assert isinstance(encoder, ModelEncoder)
    assert encoder.recall is not None
    assert encoder.recall.cosine < 0.999
    with pytest.raises(UsageError, match="too coarse"):
        encoder.encode_queries(["the fox"])


@needs_vnni
def test_what_was_compared_can_be_asked(m3: Path) -> None:
    encoder = load(str(m3), precision="int8")
    assert encoder.recall is None
    encoder.encode_documents(TEXTS)
    assert encoder.recall is not None
    assert encoder.recall.texts == len(TEXTS)
    assert encoder.recall.lexical is not None
    assert load(str(m3), precision="fp32").recall is None
