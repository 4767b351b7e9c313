from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from safetensors.torch import load_file, save_file

from m3index.encoder import layout
from m3index.encoder.presets import PRESETS
from m3index.errors import MismatchError, ModelNotFoundError, UsageError


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_m3_as_it_lies_on_the_hub(m3: Path) -> None:
    read = layout.read(m3)
    assert (read.pooling, read.modules, read.limit, read.dim) == (("cls",), (), 128, 32)
    assert read.lexical == m3 / "sparse_linear.pt"
    assert read.multi_vector == m3 / "colbert_linear.pt"
    assert layout.position_padding(read.config) == 1
    assert (read.query_prompt, read.document_prompt) == ("", "")


def test_safetensors_heads_are_preferred(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    save_file(
        torch.load(path / "sparse_linear.pt", weights_only=True), str(path / "sparse_linear.safetensors")
    )
    assert layout.read(path).lexical == path / "sparse_linear.safetensors"


def test_the_sentence_transformers_layout(tmp_path: Path) -> None:
    prompts = {"query": "q: ", "passage": "p: "}
    read = layout.read(models.write_sentence_bert(tmp_path, limit=40, dense=12, prompts=prompts))
    assert read.pooling == ("mean",)
    assert [type(m) for m in read.modules] == [layout.DenseSpec, layout.NormalizeSpec]
    assert (read.full_dim, read.limit) == (12, 40)
    assert (read.query_prompt, read.document_prompt) == ("q: ", "p: ")
    assert layout.position_padding(read.config) is None


def test_the_newer_way_to_state_pooling(tmp_path: Path) -> None:
    path = models.write_sentence_bert(tmp_path)
    (path / "1_Pooling/config.json").write_text(
        json.dumps({"embedding_dimension": 32, "pooling_mode": ["cls", "max"], "include_prompt": False})
    )
    read = layout.read(path)
    assert (read.pooling, read.full_dim, read.pool_prompt) == (("cls", "max"), 64, False)


def test_prompts_given_win_over_the_models_and_those_over_the_presets(tmp_path: Path) -> None:
    path = models.write_sentence_bert(tmp_path, prompts={"query": "ask: "})
    e5 = PRESETS["e5-small"]
    read = layout.read(path, preset=e5)
    assert (read.query_prompt, read.document_prompt) == ("ask: ", "passage: ")
    read = layout.read(path, preset=e5, query_prompt="", document_prompt="x ")
    assert (read.query_prompt, read.document_prompt) == ("", "x ")


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "expected"),
    [(100, 90, 90), (50, 90, 50), (None, None, 126), (200, 10**30, 126)],
)
def test_the_lowest_limit_counts(
    tmp_path: Path, sentence: int | None, tokenizer: int | None, expected: int
) -> None:
    path = models.write_sentence_xlmr(tmp_path, limit=126)
    change(path / "sentence_bert_config.json", max_seq_length=sentence)
    change(path / "tokenizer_config.json", model_max_length=tokenizer)
    assert layout.read(path).limit == expected


def test_a_preset_bounds_the_limit(mistral: Path) -> None:
    change_free = layout.read(mistral, preset=PRESETS["e5-mistral"])
    assert change_free.limit == 64
    assert change_free.append_eos


@pytest.mark.parametrize("dim", [0, -1, 33])
def test_a_dim_that_cannot_be(m3: Path, dim: int) -> None:
    with pytest.raises(UsageError, match="32 dimensions"):
        layout.read(m3, dim=dim)


def test_no_model_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        layout.read(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    with pytest.raises(ModelNotFoundError, match="no weights"):
        layout.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(MismatchError, match="not valid JSON"):
        layout.read(tmp_path)


def test_a_missing_shard(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelNotFoundError, match="00002-of-00002"):
        layout.read(path)


def test_a_decoder_without_a_pooling_module_is_refused(tmp_path: Path) -> None:
    path = models.write_sentence_mistral(tmp_path)
    (path / "modules.json").unlink()
    with pytest.raises(UsageError, match="pooled"):
        layout.read(path)


def test_modules_that_are_not_known_are_refused(tmp_path: Path) -> None:
    path = models.write_sentence_bert(tmp_path, dense=4, activation="my.code.Swish")
    with pytest.raises(UsageError, match=r"my\.code\.Swish"):
        layout.read(path)
    modules = json.loads((path / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.LSTM"
    (path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UsageError, match="LSTM"):
        layout.read(path)
    modules[0]["type"] = "sentence_transformers.models.BoW"
    (path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UsageError, match="BoW"):
        layout.read(path)


def test_a_dense_module_of_another_width(tmp_path: Path) -> None:
    path = models.write_sentence_bert(tmp_path, dense=4)
    change(path / "2_Dense/config.json", in_features=31)
    with pytest.raises(MismatchError, match="31"):
        layout.read(path)


# ---------------------------------------------------------------- the space


def space(path: Path, **options: Any) -> str:
    return layout.space_digest(layout.read(path, **options))


def test_a_copy_elsewhere_is_the_same_space(m3: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(m3, tmp_path / "elsewhere")
    (copy / "README.md").write_text("a card")
    change(copy / "config.json", _name_or_path="somewhere", transformers_version="9")
    assert space(copy) == space(m3)


def test_what_changes_vectors_changes_the_space(m3: Path, tmp_path: Path) -> None:
    seen = {space(m3), space(m3, dim=8), space(m3, query_prompt="q: "), space(m3, document_prompt="d: ")}
    for name, edit in {
        "weights": lambda p: _scaled(p / "model.safetensors"),
        "head": lambda p: shutil.copy(models.write_m3(tmp_path / "x", seed=5) / "sparse_linear.pt", p),
        "no head": lambda p: (p / "sparse_linear.pt").unlink(),
        "config": lambda p: change(p / "config.json", layer_norm_eps=1e-6),
        "tokenizer": lambda p: (p / "tokenizer.json").write_text((p / "tokenizer.json").read_text() + " "),
    }.items():
        path = shutil.copytree(m3, tmp_path / name)
        edit(path)
        seen.add(space(path))
    assert len(seen) == 9
    path = shutil.copytree(m3, tmp_path / "no multi-vector")
    (path / "colbert_linear.pt").unlink()
    assert space(path) == space(m3)  # multi-vectors are not stored


def _scaled(path: Path) -> None:
    save_file({k: v * 1.5 for k, v in load_file(str(path)).items()}, str(path))


def test_large_files_are_sampled(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path, hidden_size=256, num_hidden_layers=2, intermediate_size=512)
    before = space(path)
    assert (path / "model.safetensors").stat().st_size > 4 * layout._SLICES * layout._SLICE_BYTES
    _scaled(path / "model.safetensors")
    assert space(path) != before


def test_parameters_are_counted_from_the_header(m3: Path) -> None:
    expected = sum(t.numel() for t in load_file(str(m3 / "model.safetensors")).values())
    assert layout.count_parameters(layout.read(m3).weights) == expected


def test_a_torn_safetensors_file(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    with (path / "model.safetensors").open("r+b") as f:
        f.truncate(100)
    with pytest.raises(MismatchError, match=r"not a complete|are too small"):
        space(path)
