from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import jsonschema
import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from m3index import schema
from m3index.encoder.base import Encoder
from m3index.encoder.load import describe, load
from m3index.encoder.presets import PRESETS
from m3index.encoder.presets import describe as presets
from m3index.errors import MismatchError, MissingHeadError, UsageError

TEXTS = ["the quick brown fox", "a", "der Fuchs liest ein Buch"]


def test_the_protocol(m3: Path) -> None:
    encoder: Encoder = load(str(m3), precision="fp32")
    info = encoder.info
    assert (info.dim, info.limit, info.window_reserve) == (32, 128, 2)
    assert info.lexical
    assert info.multi_vector
    assert info.parameters > 10_000
    assert info.name == str(m3)
    ids = [t.ids for t in encoder.tokenizer.documents(TEXTS)]
    batch = encoder.encode_ids(ids, lexical=True, multi_vector=True)
    assert batch.dense.shape == (3, 32)
    assert batch.dense.dtype == np.float32
    assert batch.tokens.tolist() == [len(i) for i in ids]
    assert batch.lexical is not None
    assert len(batch.lexical) == 3
    assert batch.multi_vector is not None
    assert [v.shape for v in batch.multi_vector] == [(len(i) - 1, 32) for i in ids]
    plain = encoder.encode_ids(ids, lexical=False)
    assert plain.lexical is None
    assert plain.multi_vector is None
    assert len(encoder.encode_queries(["fox"], lexical=False)) == 1


def test_nothing_to_encode(m3: Path) -> None:
    batch = load(str(m3)).encode_ids([], lexical=True, multi_vector=True)
    assert batch.dense.shape == (0, 32)
    assert batch.lexical is not None
    assert len(batch.lexical) == 0
    assert batch.multi_vector == []


def test_torch_is_not_imported_before_the_first_text(m3: Path) -> None:
    script = (
        "import sys; from m3index.encoder.load import load; e = load(sys.argv[1]);"
        "e.tokenizer.documents(['fox']); e.info; e.close();"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(m3)], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.stdout.split() == ["False", "False"]


def test_loading_says_nothing(m3: Path) -> None:
    script = (
        "import sys; from m3index.encoder.load import load; e = load(sys.argv[1]);"
        "e.encode_documents(['fox ' * 60]); e.tokenizer.documents(['fox ' * 5000])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(m3)], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize(("lexical", "multi_vector"), [(True, False), (False, True)])
def test_a_missing_head_is_refused_and_the_other_one_works(
    tmp_path: Path, lexical: bool, multi_vector: bool
) -> None:
    encoder = load(str(models.write_m3(tmp_path, lexical=lexical, multi_vector=multi_vector)))
    assert (encoder.info.lexical, encoder.info.multi_vector) == (lexical, multi_vector)
    encoder.encode_documents(TEXTS, lexical=lexical, multi_vector=multi_vector)
    with pytest.raises(MissingHeadError, match="head"):
        encoder.encode_documents(TEXTS, lexical=not lexical, multi_vector=not multi_vector)


def test_heads_of_another_shape(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    torch.save({"weight": torch.zeros(1, 16), "bias": torch.zeros(1)}, path / "sparse_linear.pt")
    with pytest.raises(MismatchError, match=r"sparse_linear.*\(1, 16\), expected \(1, 32\)"):
        load(str(path)).encode_documents(TEXTS)
    torch.save({"weights": torch.zeros(1, 32)}, path / "sparse_linear.pt")
    with pytest.raises(MismatchError, match="lacks weight"):
        load(str(path)).encode_documents(TEXTS)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil-was-here",)


def test_a_head_that_is_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = models.write_m3(tmp_path / "model")
    with (path / "sparse_linear.pt").open("wb") as f:
        pickle.dump(Evil(), f)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MismatchError, match="tensors alone"):
        load(str(path)).encode_documents(TEXTS)
    assert not (tmp_path / "evil-was-here").exists()


def test_a_missing_weight_is_refused(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    tensors = load_file(str(path / "model.safetensors"))
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    with pytest.raises(MismatchError, match=r"lacks 1 weights.*encoder\.layer\.1\.output\.dense\.weight"):
        load(str(path)).encode_documents(TEXTS)


def test_a_weight_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"intermediate_size": 80}))
    with pytest.raises(MismatchError):
        load(str(path)).encode_documents(TEXTS)


def test_a_checkpoint_without_a_pooler_is_fine(tmp_path: Path) -> None:
    path = models.write_sentence_bert(tmp_path)
    before = load(str(path), precision="fp32").encode_documents(TEXTS).dense
    tensors = load_file(str(path / "model.safetensors"))
    kept = {k: v for k, v in tensors.items() if not k.startswith("pooler.")}
    assert len(kept) < len(tensors)
    save_file(kept, str(path / "model.safetensors"), metadata={"format": "pt"})
    np.testing.assert_allclose(load(str(path), precision="fp32").encode_documents(TEXTS).dense, before)


def test_pickled_weights_where_there_are_no_others(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    before = load(str(path), precision="fp32").encode_documents(TEXTS).dense
    models.pickle_weights(path)
    np.testing.assert_allclose(load(str(path), precision="fp32").encode_documents(TEXTS).dense, before)


def test_remote_code_is_not_run_unasked(tmp_path: Path) -> None:
    path = models.write_m3(tmp_path)
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "c.C", "AutoModel": "c.M"}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "c.py").write_text("raise SystemExit('ran')")
    with pytest.raises(MismatchError, match="trust_remote_code"):
        load(str(path)).encode_documents(TEXTS)


def test_an_input_over_the_limit_is_never_cut(m3: Path) -> None:
    encoder = load(str(m3))
    with pytest.raises(UsageError, match="takes 128"):
        encoder.encode_documents(["the " * 200])
    with pytest.raises(UsageError, match="Shorten"):
        encoder.encode_queries(["the " * 200])
    with pytest.raises(UsageError, match="without any token"):
        encoder.encode_ids([np.zeros(0, np.int32)], lexical=False)


def test_precision_is_in_the_encoders_identity_not_in_its_space(m3: Path) -> None:
    a, b = load(str(m3), precision="fp32").info, load(str(m3), precision="bf16").info
    assert a.space_id == b.space_id
    assert a.encoder_id != b.encoder_id


def test_bf16_is_close_to_fp32(m3: Path) -> None:
    a = load(str(m3), precision="fp32").encode_documents(list(models.LINES))
    b = load(str(m3), precision="bf16").encode_documents(list(models.LINES))
    assert ((a.dense * b.dense).sum(1) > 0.999).all()


def test_closed_and_used_again_from_several_threads(m3: Path) -> None:
    encoder = load(str(m3), precision="fp32")
    expected = encoder.encode_documents(TEXTS).dense
    encoder.close()
    encoder.close()
    results: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: results.append(encoder.encode_documents(TEXTS).dense))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for got in results:
        np.testing.assert_array_equal(got, expected)


def test_no_process_wide_setting_is_left_behind(m3: Path) -> None:
    before = (torch.get_float32_matmul_precision(), torch.get_num_threads(), torch.is_grad_enabled())
    load(str(m3), precision="fp32").encode_documents(TEXTS)
    assert (torch.get_float32_matmul_precision(), torch.get_num_threads(), torch.is_grad_enabled()) == before


# ------------------------------------------------------------------ presets


def test_presets_are_rows_of_the_model_schema() -> None:
    rows = presets()
    assert [r["name"] for r in rows] == list(PRESETS)
    assert [r["name"] for r in rows if r["default"]] == ["teacher"]
    for row in rows:
        jsonschema.validate(row, schema.load("model.schema.json"))


@pytest.mark.parametrize("name", ["offline-en", pytest.param("offline", marks=pytest.mark.slow)])
def test_the_preset_of_a_package_says_what_its_files_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    row = next(r for r in presets() if r["name"] == name)
    files = describe(name)
    jsonschema.validate(files, schema.load("model.schema.json"))
    assert abs(files.pop("parameters") - row.pop("parameters")) < 1000
    assert files == row


def test_a_directory_described(m3: Path) -> None:
    row = describe(str(m3))
    jsonschema.validate(row, schema.load("model.schema.json"))
    assert row["outputs"] == ["dense", "lexical", "multi_vector"]
    assert row["sparse"] == "lexical"
