from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from m3index.encoder.cross import CrossEncoder
from m3index.errors import MismatchError, UsageError

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
