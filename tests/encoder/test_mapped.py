"""Pickled weights, prepared once as safetensors in the precision that they run in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from m3index.encoder import backbone, hardware, layout, mapped, prepared
from m3index.encoder.load import load, prepare_model
from m3index.encoder.options import Device
from m3index.encoder.prepared import PreparedModel
from m3index.encoder.weights import Weights, joined
from m3index.errors import MismatchError, StoppedError, UsageError
from m3index.types import EncodedBatch

TEXTS = ["the quick brown fox", "", "le renard brun saute", "a " * 40]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return prepared.cache_folder()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """BGE-M3's files: pytorch_model.bin, sparse_linear.pt, colbert_linear.pt."""
    path = models.pickle_weights(models.write_m3(tmp_path / "m3"))
    assert sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".safetensors")) == [
        "colbert_linear.pt",
        "pytorch_model.bin",
        "sparse_linear.pt",
    ]
    return path


@pytest.fixture
def never_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("transformers' model was made")

    monkeypatch.setattr(backbone, "load_model", refuse)


def encode(path: Path, precision: str = "bf16", *, no_prepare: bool = False) -> EncodedBatch:
    encoder = load(str(path), precision=precision, no_prepare=no_prepare)
    return encoder.encode_documents(TEXTS, multi_vector=True)


def assert_same(got: EncodedBatch, expected: EncodedBatch) -> None:
    """Bit for bit."""
    np.testing.assert_array_equal(got.dense, expected.dense)
    assert got.lexical is not None
    assert expected.lexical is not None
    for part in ("indptr", "indices", "values"):
        np.testing.assert_array_equal(getattr(got.lexical, part), getattr(expected.lexical, part))
    for mine, theirs in zip(got.multi_vector or (), expected.multi_vector or (), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_vectors_are_those_of_the_original(published: Path, precision: str) -> None:
    expected = encode(published, precision, no_prepare=True)
    assert prepared.prepared() == []
    first, second = encode(published, precision), encode(published, precision)
    [form] = prepared.prepared()
    assert form.name == f"m3-{precision}"
    assert {path.name for path in form.directory.iterdir()} == {
        "model.safetensors",
        "sparse_linear.safetensors",
    }
    assert_same(first, expected)
    assert_same(second, expected)


def test_it_is_prepared_once_and_announced(
    published: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "m3index.encoder")
    encode(published)
    encode(published)
    assert caplog.messages == [f"Preparing the model m3 in bf16, once, in {cache} (0 MB)."]


def test_what_is_written_is_what_the_precision_needs(published: Path) -> None:
    encode(published)
    [form] = prepared.prepared()
    written = load_file(str(form.directory / "model.safetensors"))
    source = torch.load(published / "pytorch_model.bin", weights_only=True)
    assert set(source) - set(written) == {name for name in source if name.startswith("pooler.")}
    for name, tensor in written.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, source[name].to(torch.bfloat16))
    head = load_file(str(form.directory / "sparse_linear.safetensors"))
    for name, tensor in torch.load(published / "sparse_linear.pt", weights_only=True).items():
        assert torch.equal(head[name], tensor)


def test_later_loads_make_no_model_of_transformers(published: Path, never_transformers: None) -> None:
    encode(published)
    (published / "pytorch_model.bin").chmod(0o400)
    encode(published)


def test_fp32_reads_the_original(published: Path) -> None:
    exact = encode(published, "fp32")
    assert prepared.prepared() == []
    assert_same(exact, encode(published, "fp32", no_prepare=True))


def test_where_fp32_is_the_default_it_is_prepared_exactly(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_computes_bf16", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    exact = encode(published, "fp32")
    assert_same(encode(published, "auto"), exact)
    assert [form.name for form in prepared.prepared()] == ["m3-fp32"]


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp32"])
def test_the_identity_of_the_encoder_does_not_change(published: Path, precision: str) -> None:
    before = load(str(published), precision=precision, no_prepare=True).info
    encode(published, precision)
    for no_prepare in (False, True):
        info = load(str(published), precision=precision, no_prepare=no_prepare).info
        assert (info.encoder_id, info.space_id, info) == (before.encoder_id, before.space_id, before)


def test_other_weights_are_another_form(published: Path) -> None:
    encode(published)
    file = published / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    name = "encoder.layer.1.output.dense.weight"
    tensors[name] = -tensors[name]
    torch.save(tensors, file)
    os.utime(file, ns=(1, 1))
    assert_same(encode(published), encode(published, no_prepare=True))
    assert len(prepared.prepared()) == 2


def test_a_copy_of_equal_age_shares_the_form(published: Path, tmp_path: Path) -> None:
    encode(published)
    shutil.copytree(published, tmp_path / "copy/m3")
    encode(tmp_path / "copy/m3")
    assert len(prepared.prepared()) == 1


def test_weights_in_several_files(published: Path) -> None:
    expected = encode(published, no_prepare=True)
    tensors = torch.load(published / "pytorch_model.bin", weights_only=True)
    (published / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    shards = {f"pytorch_model-0000{i}-of-00002.bin": names[i - 1 :: 2] for i in (1, 2)}
    for file, part in shards.items():
        torch.save({name: tensors[name] for name in part}, published / file)
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    models._write_json(published / "pytorch_model.bin.index.json", index)
    assert_same(encode(published), expected)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["", "roberta."])
def test_whatever_the_pickle_calls_them(published: Path, zipped: bool, prefix: str) -> None:
    expected = encode(published, no_prepare=True)
    file = published / "pytorch_model.bin"
    tensors = {f"{prefix}{name}": t for name, t in torch.load(file, weights_only=True).items()}
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    assert_same(encode(published), expected)


def test_weights_that_are_missing(published: Path) -> None:
    file = published / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    del tensors["encoder.layer.1.output.dense.weight"]
    torch.save(tensors, file)
    with pytest.raises(MismatchError, match=r"lacks 1 weights .* encoder\.layer\.1\.output\.dense\.weight"):
        encode(published)
    assert prepared.prepared() == []


def test_a_pickle_that_is_no_model(published: Path) -> None:
    (published / "pytorch_model.bin").write_bytes(b"nonsense" * 100)
    with pytest.raises(MismatchError, match=r"not a file of tensors alone|are too small"):
        encode(published)
    assert prepared.prepared() == []


def test_without_a_cache_the_original_is_read(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = encode(published, no_prepare=True)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_same(encode(published), expected)
    [message] = caplog.messages
    assert "cannot be written" in message
    assert message.endswith("Until then, the model loads slowly; --no-prepare leaves it as it is.")
    with pytest.raises(UsageError, match="cannot be written"):
        prepare_model(str(published), Device(precision="bf16"))


def test_a_disk_without_room(
    published: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = encode(published, no_prepare=True)
    monkeypatch.setattr(prepared.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    assert_same(encode(published), expected)
    assert caplog.messages[0].startswith(f"{cache}: the disk has no room for")
    assert not cache.exists()
    with pytest.raises(StoppedError, match="no room"):
        prepare_model(str(published), Device(precision="bf16"))


def test_prepare_model(published: Path, tmp_path: Path, never_transformers: None) -> None:
    directory = prepare_model(str(published), Device(precision="bf16"))
    assert [form.directory for form in prepared.prepared()] == [directory]
    assert prepare_model(str(published), Device(precision="fp32")) == published
    assert prepare_model(str(published), Device(precision="int8")) == published
    safe = models.write_m3(tmp_path / "safe")
    assert prepare_model(str(safe), Device(precision="bf16")) == safe


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_large_safetensors_of_another_precision_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: torch.dtype
) -> None:
    path = models.write_m3(tmp_path / "safe")
    file = path / "model.safetensors"
    save_file({n: t.to(stored) for n, t in load_file(str(file)).items()}, str(file))
    expected = encode(path)
    assert prepared.prepared() == []
    monkeypatch.setattr(mapped, "_LARGE", 0)
    before = load(str(path), precision="bf16", no_prepare=True).info
    assert_same(encode(path), expected)
    assert_same(encode(path), expected)
    assert load(str(path), precision="bf16").info == before
    [form] = prepared.prepared()
    assert form.name == "safe-bf16"
    assert prepare_model(str(path), Device(precision="bf16")) == form.directory


def test_large_safetensors_of_this_precision_are_mapped_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "_LARGE", 0)
    path = models.write_m3(tmp_path / "safe")
    file = path / "model.safetensors"
    save_file({n: t.to(torch.bfloat16) for n, t in load_file(str(file)).items()}, str(file))
    encode(path)
    assert prepared.prepared() == []


def test_query_key_and_value_are_one_matrix_of_the_file(published: Path) -> None:
    """No copy of them is made."""
    prepare_model(str(published), Device(precision="bf16"))
    ready = mapped.mapped(layout.read(published), "bf16")
    weights = Weights(ready, torch.bfloat16, torch.device("cpu"))
    parts = [weights(f"encoder.layer.1.attention.self.{x}.weight") for x in ("query", "key", "value")]
    one = joined(parts)
    assert one.data_ptr() == parts[0].data_ptr()
    assert torch.equal(one, torch.cat(parts))
    assert joined(parts[::-1]).data_ptr() != parts[2].data_ptr()
    assert torch.equal(joined(parts[::-1]), torch.cat(parts[::-1]))


def test_names_in_the_cache() -> None:
    form = PreparedModel("offline", "0123456789abcdef")
    assert prepared.model_name(form.directory) == "offline"
    snapshot = "models--BAAI--bge-m3/snapshots/5617a9f61b028005a4858fdac845db406aefb181"
    assert prepared.model_name(Path("/home/me/.cache/huggingface/hub") / snapshot) == "bge-m3"
    assert prepared.model_name(Path("/models/Modèle 3 (neu)")) == "Mod-le-3-neu"
    assert prepared.model_name(Path("/models/模型")) == "model"
    assert prepared.model_name(Path("/")) == "model"


PREPARE = """
import sys
from m3index.encoder.load import prepare_model
from m3index.encoder.options import Device
print("ready", flush=True)
prepare_model(sys.argv[1], Device(precision="bf16"))
print("done", flush=True)
"""


def test_a_process_that_is_killed_leaves_nothing_half_made(tmp_path: Path) -> None:
    path = models.pickle_weights(
        models.write_m3(tmp_path / "m3", hidden_size=256, num_hidden_layers=4, intermediate_size=1024)
    )
    expected = encode(path, no_prepare=True)
    for i in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(path)], text=True, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while not list(prepared.cache_folder().glob("*")) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.004 * i)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for form in prepared.prepared():
            assert layout.weight_files(form.directory)
            assert_same(encode(path), expected)
            prepared.remove(form)
    assert_same(encode(path), expected)
    assert [p.suffix for p in prepared.cache_folder().iterdir() if p.suffix == ".partial"] == []
