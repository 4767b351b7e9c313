"""What the tasks of Ray do, without Ray's processes: the types are those declared, the shards the same."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from fakes import FakeEncoder
from scale_support import ENCODE, contents, document

pytest.importorskip("ray", reason="needs m3index[ray]")

from m3index.corpus.options import Input
from m3index.errors import DriftError
from m3index.files import Folder
from m3index.scale.encode import ShardPlan, encode, fingerprint_of, open_for
from m3index.scale.on_ray import (
    CUT,
    DONE,
    READ,
    CorpusInput,
    EncodeShard,
    RayJob,
    ShardSource,
    _stretches,
    cut_shard,
)


def write(folder: Path, rows: dict[str, list[int]]) -> CorpusInput:
    for name, numbers in rows.items():
        lines = [json.dumps(document(n)) for n in numbers]
        lines.insert(len(lines) // 2, "{broken")
        (folder / name).write_text("\n".join(lines), "utf-8")
    return CorpusInput([str(folder / name) for name in rows], Input(), str(folder))


@pytest.fixture
def job(tmp_path: Path) -> RayJob:
    source = write(tmp_path, {"a.jsonl": [*range(30)], "b.jsonl": [50], "c.jsonl": [*range(60, 90)]})
    too_long = document(99, 40, title="a title of so very many words that no room is left for text at all")
    (tmp_path / "b.jsonl").write_text(json.dumps(too_long))
    fingerprint = fingerprint_of(FakeEncoder(), ENCODE)
    return RayJob(source, ENCODE, fingerprint, Folder(tmp_path / "out"), FakeEncoder)


def test_the_tasks_write_the_shards_of_a_run_without_ray(job: RayJob, tmp_path: Path) -> None:
    folder = open_for(job.out, job.fingerprint)
    plan = ShardPlan(folder, job.fingerprint, job.settings, lambda _: None)
    stretches = list(_stretches(job.source.open(), plan))
    assert len(stretches) == 8
    del stretches[2]  # as if it were there
    assert [len(s.files) for s in stretches] == [1, 1, 3, 1, 1, 1, 1]
    actor, rejected = EncodeShard(job), []
    for task in ShardSource(job, stretches, readers=2).get_read_tasks(1):
        for read in task():
            assert read.schema.equals(READ)
            cut = cut_shard(read, job)
            assert cut.schema.equals(CUT)
            done = actor(cut)
            assert done.schema.equals(DONE)
            rejected += done.column("rejected").to_pylist()[0]
    assert [one["doc_id"] for one in rejected] == ["d99"]
    encode(job.source.open(), job.out, FakeEncoder(), job.settings)  # the one that was left out
    alone = Folder(tmp_path / "alone")
    encode(job.source.open(), alone, FakeEncoder(), job.settings)
    assert contents(job.out) == contents(alone)
    assert pa.types.is_fixed_size_list(job.fingerprint.arrow.field("dense").type)


def test_a_corpus_that_changes_meanwhile_is_noticed(job: RayJob, tmp_path: Path) -> None:
    folder = open_for(job.out, job.fingerprint)
    plan = ShardPlan(folder, job.fingerprint, job.settings, lambda _: None)
    stretches = list(_stretches(job.source.open(), plan))
    text = (tmp_path / "c.jsonl").read_text("utf-8")
    (tmp_path / "c.jsonl").write_text(text.replace("w60x", "w61x"), "utf-8")
    [task] = ShardSource(job, stretches, readers=1).get_read_tasks(1)
    with pytest.raises(DriftError, match="has changed"):
        list(task())
