"""Every architecture, pooling and module against the padded reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import numpy as np
import pytest
import torch

from encoder import reference
from m3index.encoder import backbone
from m3index.encoder.load import load

TEXTS = ["the quick brown fox", "", "le renard brun saute, le chien lit", "敏捷的棕色狐狸 book", "a " * 40]
WRITERS: dict[str, Callable[..., Path]] = {
    "bert": models.write_sentence_bert,
    "xlmr": models.write_sentence_xlmr,
    "mistral": models.write_sentence_mistral,
}


def agrees(path: Path, *, prompt: str = "", dim: int | None = None, atol: float = 1e-5) -> None:
    expected = reference.encode(path, TEXTS, prompt, dim)
    got = load(str(path), precision="fp32", dim=dim).encode_documents(TEXTS)
    np.testing.assert_allclose(got.dense, expected.dense, atol=atol)
    np.testing.assert_allclose(np.linalg.norm(got.dense, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize(
    "pooling", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
)
def test_pooling_of_every_family(tmp_path: Path, family: str, pooling: str) -> None:
    agrees(WRITERS[family](tmp_path, pooling=pooling))


@pytest.mark.parametrize("family", ["bert", "xlmr"])
@pytest.mark.parametrize("way", [backbone.PackedBackbone, backbone.SingleBackbone])
def test_every_way_gives_the_same(
    tmp_path: Path, family: str, way: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BERT and XLM-R have a forward of our own; transformers' code, packed or not, must agree with it."""

    def only(model: object, device: object) -> backbone.Backbone:
        chosen: backbone.Backbone = way(model)
        return chosen

    monkeypatch.setattr(backbone, "of_model", only)
    monkeypatch.setattr(backbone, "_kernels_agree", lambda *_: False)
    agrees(WRITERS[family](tmp_path))


def test_xlmr_and_bert_take_the_forward_of_our_own(tmp_path: Path) -> None:
    for family in ("bert", "xlmr"):
        encoder = load(str(WRITERS[family](tmp_path / family)))
        encoder.encode_documents(["fox"])
        assert encoder._engines is not None
        (found,) = encoder._engines[0]._backbones._models.values()
        assert isinstance(found, backbone.FusedBackbone)


def test_a_way_that_is_not_exact_is_found_out(
    bert: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A kernel that lets inputs see each other: no packed way is taken, and the vectors are right."""

    def leaky(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        whole = [x.transpose(0, 1)[None] for x in (q, k, v)]
        return torch.nn.functional.scaled_dot_product_attention(*whole)[0].transpose(0, 1)

    monkeypatch.setattr(backbone.attention, "attend", leaky)
    agrees(bert)
    assert "cannot be packed" in caplog.text


def test_two_pooling_modes_are_concatenated(tmp_path: Path) -> None:
    agrees(models.write_sentence_bert(tmp_path, pooling=("cls", "mean")))


def test_a_dense_module(tmp_path: Path) -> None:
    path = models.write_sentence_xlmr(tmp_path, dense=12)
    assert load(str(path)).info.dim == 12
    agrees(path)


def test_vectors_are_normalised_where_the_model_leaves_it_to_its_users(tmp_path: Path) -> None:
    agrees(models.write_sentence_bert(tmp_path, normalize=False))


@pytest.mark.parametrize("dim", [1, 7, 32])
def test_matryoshka_cuts_then_renormalises(bert: Path, dim: int) -> None:
    agrees(bert, dim=dim)


def test_the_document_prompt_is_encoded(tmp_path: Path) -> None:
    prompts = {"query": "query: ", "passage": "le livre: "}
    path = models.write_sentence_xlmr(tmp_path, pooling="mean", prompts=prompts)
    agrees(path, prompt="le livre: ")
    query = load(str(path), precision="fp32").encode_queries(TEXTS[:1])
    np.testing.assert_allclose(query.dense, reference.encode(path, TEXTS[:1], "query: ").dense, atol=1e-5)


def test_a_sliding_window_of_a_decoder(tmp_path: Path) -> None:
    agrees(models.write_sentence_mistral(tmp_path, window=5))


def test_a_family_without_a_forward_of_our_own(tmp_path: Path) -> None:
    """ModernBERT: rotary positions, a two-sided sliding window; transformers' code, our attention."""
    from transformers import ModernBertConfig, ModernBertModel

    tokenizer = models.wordpiece_tokenizer()
    config = ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, local_attention=8, global_attn_every_n_layers=2,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3,
    )  # fmt: skip
    models.save(tmp_path, ModernBertModel, config, tokenizer, models.BERT_TOKENS, 64, 0)
    models.write_sentence_modules(tmp_path, 32, pooling="mean", limit=64)
    agrees(tmp_path)


def test_model_code_that_cannot_be_packed_takes_one_input_at_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MPNet has relative positions inside its attention: packing would be wrong, so it is not packed."""
    from transformers import MPNetConfig, MPNetModel

    tokenizer = models.unigram_tokenizer()
    config = MPNetConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=66, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    models.save(tmp_path, MPNetModel, config, tokenizer, models.XLMR_TOKENS, 64, 0)
    models.write_sentence_modules(tmp_path, 32, pooling="mean", limit=64)
    agrees(tmp_path)
    assert "cannot be packed" in caplog.text
