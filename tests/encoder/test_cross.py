from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from encoder.copies import record_copies
from m3index.encoder import backbone, cross, hardware
from m3index.encoder.cross import CrossEncoder
from m3index.errors import M3IndexError, MismatchError, UsageError

QUERY = "the brown book"
TEXTS = ["the quick brown fox", "", "le renard brun saute", "敏捷的棕色狐狸", "a " * 50]


def padded(path: Path, texts: list[str]) -> np.ndarray:
    """All pairs in one padded batch by transformers."""
    from transformers import AutoModelForSequenceClassification

    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    rows = [tokenizer.encode(QUERY, t) for t in texts]
    width = max(len(r.ids) for r in rows)
    model = AutoModelForSequenceClassification.from_pretrained(str(path), attn_implementation="eager")
    pad = model.config.pad_token_id
    ids, types, mask = (
        torch.tensor([[*x, *[fill] * (width - len(x))] for x in column])
        for column, fill in (
            ([r.ids for r in rows], pad),
            ([r.type_ids for r in rows], 0),
            ([r.attention_mask for r in rows], 0),
        )
    )
    extra = {"token_type_ids": types} if model.config.type_vocab_size > 1 else {}
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=mask, **extra).logits[:, 0].numpy()


def write_bert(path: Path) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = models.wordpiece_tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=128, num_labels=1,
    )  # fmt: skip
    models.save(path, BertForSequenceClassification, config, tokenizer, models.BERT_TOKENS, 128, 3)
    return path


@pytest.mark.parametrize("write", [models.write_cross_encoder, write_bert])
def test_scores_equal_a_padded_batch(tmp_path: Path, write: object) -> None:
    path = write(tmp_path)  # type: ignore[operator]
    got = CrossEncoder.load(str(path), precision="fp32").score(QUERY, TEXTS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, padded(path, TEXTS), atol=1e-5)


def test_nothing_to_score(tmp_path: Path) -> None:
    assert CrossEncoder.load(str(models.write_cross_encoder(tmp_path))).score(QUERY, []).shape == (0,)


def test_a_long_text_counts_by_its_best_window(tmp_path: Path) -> None:
    path = models.write_cross_encoder(tmp_path, limit=32)
    cross = CrossEncoder.load(str(path), precision="fp32")
    words = ("the quick brown fox jumps over the lazy dog and reads a book about search " * 3).split()
    room = 32 - len(cross._tokenizer.pair_ids(QUERY, [""])[0][0])
    windows = [" ".join(words[i : i + room]) for i in range(0, len(words), room)]
    assert len(windows) > 1
    expected = padded(path, windows).max()
    short, long = cross.score(QUERY, ["fox", " ".join(words)])
    assert long == pytest.approx(expected, abs=1e-5)
    assert short == pytest.approx(padded(path, ["fox"])[0], abs=1e-5)


def test_a_query_that_leaves_no_room(tmp_path: Path) -> None:
    cross = CrossEncoder.load(str(models.write_cross_encoder(tmp_path, limit=16)))
    with pytest.raises(UsageError, match="of the 16 tokens"):
        cross.score("the " * 12, ["fox"])


def test_an_embedder_is_no_cross_encoder(m3: Path) -> None:
    with pytest.raises(MismatchError, match="classifier"):
        CrossEncoder.load(str(m3))


def test_a_decoder_is_not_supported(mistral: Path) -> None:
    with pytest.raises(UsageError, match="mistral"):
        CrossEncoder.load(str(mistral))


def test_several_labels(tmp_path: Path) -> None:
    from transformers import XLMRobertaForSequenceClassification

    tokenizer = models.unigram_tokenizer()
    config = models.xlmr_config(tokenizer.get_vocab_size(), num_labels=3)
    models.save(tmp_path, XLMRobertaForSequenceClassification, config, tokenizer, models.XLMR_TOKENS, 128, 0)
    with pytest.raises(MismatchError, match="3 labels"):
        CrossEncoder.load(str(tmp_path))


class Tight:
    """A device with room for `room` tokens at a time, which says in two ways that there is no more."""

    def __init__(self, forward: Callable[..., Any], room: int) -> None:
        self.forward, self.room, self.seen = forward, room, []  # type: ignore[var-annotated]

    def __call__(self, ids: torch.Tensor, *rest: Any) -> Any:
        self.seen.append(len(ids))
        if len(ids) > self.room:
            raise (
                torch.OutOfMemoryError("CUDA out of memory")
                if len(self.seen) % 2
                else RuntimeError(
                    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
                )
            )
        return self.forward(ids, *rest)


def test_a_pack_that_does_not_fit_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(models.write_cross_encoder(tmp_path))
    expected = CrossEncoder.load(path, precision="fp32").score(QUERY, TEXTS * 3)
    tight: list[Tight] = []
    real = backbone.of_model

    def of_model(*args: Any) -> Tight:
        tight.append(Tight(real(*args), 90))
        return tight[-1]

    monkeypatch.setattr(cross.backbone, "of_model", of_model)
    encoder = CrossEncoder.load(path, precision="fp32")
    np.testing.assert_allclose(encoder.score(QUERY, TEXTS * 3), expected, atol=1e-5)
    assert tight[0].seen[0] > 90
    assert len(tight[0].seen) > 3
    tight[0].room = 10
    with pytest.raises(M3IndexError, match=r"cpu does not have enough memory for one input of \d+ tokens"):
        encoder.score(QUERY, TEXTS)


def test_no_copy_of_a_pack_waits_and_no_score_is_awaited_before_all_packs_are_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`encoder.transfer` copies through page-locked memory, without which each copy would wait."""
    seen = record_copies(monkeypatch, cross)
    path = models.write_cross_encoder(tmp_path)
    CrossEncoder(str(path), path, precision="fp32", batch_tokens=64).score(QUERY, TEXTS * 3)
    packs = seen.count(1)
    assert packs > 2
    ids_positions_bounds_and_types = ["in"] * 4
    assert seen == [*ids_positions_bounds_and_types, 1] * packs + ["awaited"] * packs


def test_scores_that_overflow_and_then_do_not_fit_are_computed_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(models.overflow(models.write_cross_encoder(tmp_path, hidden_act="relu"), "roberta."))
    expected = CrossEncoder.load(path, precision="fp32").score(QUERY, TEXTS)
    rooms, made = iter([10**9, 70]), []
    real = backbone.of_model

    def of_model(*args: Any) -> Tight:
        made.append(Tight(real(*args), next(rooms)))
        return made[-1]

    monkeypatch.setattr(cross.backbone, "of_model", of_model)
    np.testing.assert_allclose(
        CrossEncoder.load(path, precision="fp16").score(QUERY, TEXTS), expected, atol=0.1
    )
    narrow, wide = made
    assert len(narrow.seen) == 1
    assert max(wide.seen) > wide.room >= min(wide.seen)


@pytest.mark.parametrize("wider", ["bf16", "fp32"])
def test_scores_that_overflow_are_computed_again_in_the_next_wider_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wider: str
) -> None:
    monkeypatch.setattr(hardware, "cpu_computes_bf16", lambda: wider == "bf16")
    path = str(models.overflow(models.write_cross_encoder(tmp_path, hidden_act="relu"), "roberta."))
    expected = CrossEncoder.load(path, precision="fp32").score(QUERY, TEXTS)
    encoder = CrossEncoder.load(path, precision="fp16")
    np.testing.assert_allclose(encoder.score(QUERY, TEXTS), expected, atol=0.1)
    assert list(encoder._models._models) == ["fp16", wider]


def test_scores_that_are_finite_in_no_precision(tmp_path: Path) -> None:
    file = models.write_cross_encoder(tmp_path) / "model.safetensors"
    tensors = load_file(str(file))
    tensors["classifier.out_proj.bias"][0] = float("nan")
    save_file(tensors, str(file), metadata={"format": "pt"})
    with pytest.raises(MismatchError, match="not finite in fp32"):
        CrossEncoder.load(str(tmp_path), precision="fp16").score(QUERY, TEXTS)
