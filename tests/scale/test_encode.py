"""Corpus -> shards: resumed, shared among workers, the same wherever they are made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import FakeEncoder
from scale_support import ENCODE, contents, document, rows_in

from m3index.corpus.readers import FileCorpus
from m3index.errors import DriftError, Exit, MismatchError, MissingHeadError, NotFoundError, StoppedError
from m3index.files import Folder
from m3index.scale.encode import encode
from m3index.scale.manifest import ShardFolder
from m3index.scale.shards import Fingerprint
from m3index.types import EncodedBatch, IntArray, document_key, passage_key

MakeCorpus = Callable[..., FileCorpus]


def test_a_shard_holds_all_that_a_row_is_made_of(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    summary = encode(corpus(), out, encoder, ENCODE)
    rows = rows_in(out)
    assert (summary.shards, summary.written, summary.documents) == (8, 8, 60)
    assert summary.passages == len(rows) == encoder.encoded
    of_one = [row for row in rows if row.doc_id == "d25"]
    assert [row.ordinal for row in of_one] == list(range(of_one[0].passages))
    assert of_one[0].passage_id == passage_key(document_key("default", "d25"), 0)
    assert of_one[0].metadata == {"year": 1925}
    [tokens] = encoder.tokenizer.documents([f"{of_one[1].title}\n{of_one[1].text}"])
    expected = encoder.encode_ids([tokens.ids], lexical=True)
    np.testing.assert_array_equal(of_one[1].dense, expected.dense[0])
    assert of_one[1].sparse is not None
    assert expected.lexical is not None
    assert of_one[1].sparse.to_dict() == expected.lexical.row(0).to_dict()


def test_the_types_are_those_of_the_schema(corpus: MakeCorpus, encoder: FakeEncoder, out: Folder) -> None:
    encode(corpus(), out, encoder, replace(ENCODE, storage="fp16"))
    folder = ShardFolder(out)
    record, [first, *_] = folder.complete()
    with folder.shards.open(first.file) as source:
        file = pq.ParquetFile(source)
        assert file.schema_arrow.equals(record.fingerprint.arrow)
        written = json.loads(file.schema_arrow.metadata[b"m3index.shard"])
        assert Fingerprint.from_json(written) == record.fingerprint
        assert str(file.schema_arrow.field("dense").type).startswith("fixed_size_list<element: halffloat")
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    exact = encoder.encode_ids([encoder.tokenizer.documents(["Title 0\nw0x0"])[0].ids], lexical=False)
    np.testing.assert_allclose(rows_in(out)[0].dense, exact.dense[0], atol=5e-4)


def test_a_second_run_encodes_nothing_and_a_change_redoes_its_block(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    encode(corpus(), out, encoder, ENCODE)
    before = encoder.encoded
    again = encode(corpus(), out, encoder, ENCODE)
    assert (again.written, again.kept, encoder.encoded) == (0, 8, before)

    rows = [document(n) for n in range(60)]
    rows[20] |= {"text": "something else"}
    changed = encode(corpus(rows), out, encoder, ENCODE)
    assert (changed.written, changed.kept) == (1, 7)
    assert next(row.text for row in rows_in(out) if row.doc_id == "d20") == "something else"


def test_shards_past_the_end_of_a_shorter_corpus_go(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    encode(corpus(), out, encoder, ENCODE)
    encode(corpus([document(n) for n in range(10)]), out, encoder, ENCODE)
    assert {row.doc_id for row in rows_in(out)} == {f"d{n}" for n in range(10)}
    assert len(out.sub("shards").sizes()) == len(out.sub("manifest").sizes()) == 2


def test_workers_share_the_blocks_and_nothing_else(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, tmp_path: Path
) -> None:
    alone = Folder(tmp_path / "alone")
    encode(corpus(), alone, encoder, ENCODE)
    for index in (2, 0):
        encode(corpus(), out, encoder, replace(ENCODE, shard=f"{index}/3"))
    with pytest.raises(DriftError, match="3 of 8 shards are missing"):
        ShardFolder(out).complete()
    last = encode(corpus(), out, encoder, replace(ENCODE, shard="1/3"))
    assert (last.written, last.shards) == (3, 8)
    assert contents(out) == contents(alone)


def test_shards_of_an_older_corpus_are_not_complete(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    encode(corpus(), out, encoder, ENCODE)
    rows = [document(n) for n in range(60)]
    rows[0] |= {"text": "new"}
    encode(corpus(rows), out, encoder, replace(ENCODE, shard="1/2"))  # the block is the other's
    with pytest.raises(DriftError, match="old"):
        ShardFolder(out).complete()


def test_another_encoder_is_refused(corpus: MakeCorpus, encoder: FakeEncoder, out: Folder) -> None:
    encode(corpus(), out, encoder, ENCODE)
    with pytest.raises(MismatchError, match="made by fake"):
        encode(corpus(), out, FakeEncoder(name="other"), ENCODE)
    with pytest.raises(MissingHeadError, match="no lexical head"):
        encode(corpus(), out, FakeEncoder(lexical=False), replace(ENCODE, sparse="lexical"))


def test_a_model_without_the_head_leaves_the_weights_out(corpus: MakeCorpus, out: Folder) -> None:
    encode(corpus(), out, FakeEncoder(lexical=False), ENCODE)
    assert all(row.sparse is None for row in rows_in(out))


def test_bad_rows_are_told_once_by_the_worker_whose_they_are(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    rows: list[Any] = [document(n) for n in range(20)]
    rows[3], rows[12] = "{broken", {"id": "lone", "text": "half \ud800 pair"}
    rows[17] = document(17, 40, title="no room is left by this title of very many words indeed it is so")
    told = [encode(corpus(rows), out, encoder, replace(ENCODE, shard=f"{i}/2")).quarantined for i in (0, 1)]
    assert sum(told) == 3
    assert min(told) > 0
    assert {row.doc_id for row in rows_in(out)} == {f"d{n}" for n in range(20)} - {"d3", "d12", "d17"}


def test_too_many_bad_rows_stop_the_run(corpus: MakeCorpus, encoder: FakeEncoder, out: Folder) -> None:
    with pytest.raises(StoppedError) as stopped:
        encode(corpus(["{", "{", "{"]), out, encoder, replace(ENCODE, max_errors=1))
    assert stopped.value.summary is not None
    assert stopped.value.summary["quarantined"] == 2


def test_a_run_that_is_stopped_leaves_only_whole_shards(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    class AfterThree:
        exit = Exit.INTERRUPTED

        def __init__(self) -> None:
            self.asked = 0

        def __call__(self) -> bool:
            self.asked += 1
            return self.asked > 3

    summary = encode(corpus(), out, encoder, ENCODE, stop=AfterThree())
    assert summary.exit == Exit.INTERRUPTED
    assert 0 < summary.written < 8
    with pytest.raises(NotFoundError):
        ShardFolder(out).complete()
    whole = encode(corpus(), out, encoder, ENCODE)
    assert whole.kept == summary.written
    assert len({row.doc_id for row in rows_in(out)}) == 60


def test_an_error_while_encoding_leaves_no_part_of_a_shard(corpus: MakeCorpus, out: Folder) -> None:
    class Failing(FakeEncoder):
        def encode_ids(
            self, ids: Sequence[IntArray], *, lexical: bool, multi_vector: bool = False
        ) -> EncodedBatch:
            if self.encoded > 100:
                raise RuntimeError("the device is gone")
            return super().encode_ids(ids, lexical=lexical, multi_vector=multi_vector)

    with pytest.raises(RuntimeError, match="gone"):
        encode(corpus(), out, Failing(), ENCODE)
    names = set(os.listdir(out.sub("shards").location))
    assert names == {f"{n:09d}.parquet" for n in range(len(names))}
    assert encode(corpus(), out, FakeEncoder(), ENCODE).kept == len(names)


def test_a_damaged_shard_is_said_to_be(corpus: MakeCorpus, encoder: FakeEncoder, out: Folder) -> None:
    encode(corpus(), out, encoder, ENCODE)
    path = Path(out.location) / "shards" / "000000002.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DriftError, match="damaged"):
        rows_in(out)
    path.unlink()
    assert encode(corpus(), out, encoder, ENCODE).written == 1
    assert len({row.doc_id for row in rows_in(out)}) == 60


PROGRAM = """
import sys, time
sys.path[:0] = {paths!r}
from fakes import FakeEncoder
from m3index.corpus.readers import read
from m3index.files import Folder
from m3index.scale.encode import encode
from scale_support import ENCODE

class Slow(FakeEncoder):
    def encode_ids(self, ids, *, lexical, multi_vector=False):
        time.sleep(0.05)
        return super().encode_ids(ids, lexical=lexical, multi_vector=multi_vector)

encode(read([{corpus!r}]), Folder({out!r}), Slow(), ENCODE)
"""


def test_killed_runs_are_taken_up_and_lose_nothing(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, tmp_path: Path
) -> None:
    alone = Folder(tmp_path / "alone")
    encode(corpus(), alone, encoder, ENCODE)
    tests = Path(__file__).resolve().parent
    program = PROGRAM.format(
        paths=[str(tests.parent), str(tests)], corpus=str(tmp_path / "corpus.jsonl"), out=out.location
    )
    for shards in (2, 5):
        running = subprocess.Popen([sys.executable, "-c", program])
        deadline = time.monotonic() + 60
        while len(out.sub("manifest").sizes()) < shards and time.monotonic() < deadline:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.wait()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert contents(out) == contents(alone)


def test_an_object_store_holds_shards_as_a_disk_does(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder, s3: str
) -> None:
    encode(corpus(), out, encoder, ENCODE)
    there = Folder(f"{s3}/shards")
    first = encode(corpus(), there, encoder, ENCODE)
    before = encoder.encoded
    assert (first.written, encode(corpus(), there, encoder, ENCODE).written) == (8, 0)
    assert encoder.encoded == before
    assert contents(there) == contents(out)


def test_manifest_lines_are_what_the_contract_says(
    corpus: MakeCorpus, encoder: FakeEncoder, out: Folder
) -> None:
    from m3index import schema

    encode(corpus(), out, encoder, ENCODE)
    line = json.loads((Path(out.location) / "manifest" / "000000000.json").read_text())
    assert list(line) == schema.load("shard.json")["manifest"]
    assert set(json.loads((Path(out.location) / "corpus.json").read_text())) == set(
        schema.load("shard.json")["corpus"]
    )
