"""Tenants, storage, indexes of a collection, and corpora in an object store, by the commands."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from terminal import Command, configure, without_stamp, write_jsonl

ROWS = [
    {"id": "a", "text": "the sea rises", "org": "acme"},
    {"id": "b", "text": "the sea falls", "org": "acme"},
    {"id": "c", "text": "the sea is deep", "org": "globex"},
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", ROWS)


@pytest.fixture
def docs(m3index: Command, dense_model: Path, corpus: Path) -> Command:
    """The commands, on a collection of tenants."""
    done = m3index("ingest", corpus, "-e", dense_model, "--tenant-field", "org")
    assert done.code == 0, done.err
    return m3index


def found(docs: Command, *arguments: str, similar: str = "", **environment: str) -> set[str]:
    asked = ["--similar", similar] if similar else ["sea"]
    done = docs("search", *asked, "--format", "ids", *arguments, **environment)
    assert done.code == 0, done.err
    return set(done.out.split())


def test_search_of_a_tenant(docs: Command) -> None:
    assert found(docs) == {"a", "b", "c"}
    assert found(docs, "--tenant", "acme") == found(docs, "--where", "org=acme") == {"a", "b"}
    assert found(docs, M3INDEX_TENANT="globex") == {"c"}
    assert found(docs, "--tenant", "nobody") == set()
    assert found(docs, "--tenant", "acme", similar="a") == {"b"}
    for foreign in ("c", "nothing"):
        done = docs("search", "--similar", foreign, "--tenant", "acme")
        assert (done.code, f"no document '{foreign}' of source" in done.err) == (10, True)
    queries = write_jsonl(Path("queries.jsonl"), [{"_id": "q", "text": "sea"}])
    done = docs("search", "--queries", queries, "-o", "run.trec", "--tenant", "globex")
    assert done.code == 0, done.err
    assert [line.split()[2] for line in Path("run.trec").read_text().splitlines()] == ["c"]


def test_eval_and_tune_of_a_tenant(docs: Command) -> None:
    queries = write_jsonl(Path("queries.jsonl"), [{"_id": str(i), "text": "sea"} for i in range(6)])
    judged = [f"{i}\t{name}\t1" for i in range(6) for name in ("a", "c")]
    Path("qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n", "utf-8")
    asked = ["--queries", queries, "--qrels", "qrels.tsv", "--json"]
    recall = {}
    for tenant in ("", "acme", "globex", "nobody"):
        named = ["--tenant", tenant] if tenant else []
        done = docs("eval", *asked, "--measure", "Recall@100", "--mode", "hybrid", *named)
        assert done.code == 0, done.err
        recall[tenant] = done.lines[-2]["runs"]["hybrid"]["Recall@100"]["mean"]
    assert recall == {"": 1.0, "acme": 0.5, "globex": 0.5, "nobody": 0.0}
    tuned = [docs("tune", *asked, "--folds", "2", *named) for named in ([], [], ["--tenant", "acme"])]
    assert [done.code for done in tuned] == [0, 0, 0], tuned
    everybody, again, acme = (without_stamp(done.lines[-2]) for done in tuned)
    assert everybody == again != acme


def test_status_and_verify_show_the_tenants(docs: Command, corpus: Path) -> None:
    status = docs("status", "--json").lines[0]
    assert (status["tenant_field"], status["storage"], status["index_class"]) == ("org", "fp32", "small")
    out = docs("status").out
    for words in ("tenant field", "org:str", "storage", "index class"):
        assert words in out
    write_jsonl(corpus, ROWS[:2])
    proof = docs("verify", corpus, "--tenant", "acme", "--json").lines[-1]
    assert (proof["checked"], proof["tenant_field"], proof["tenant"], proof["exit"]) == (2, "org", "acme", 0)
    assert "compared of tenant acme" in docs("verify", corpus, "--tenant", "acme").err


def test_sync_and_delete_of_a_tenant(docs: Command, corpus: Path) -> None:
    write_jsonl(corpus, ROWS[:1])
    assert docs("sync", corpus, "--dry-run", "--tenant", "acme", "--json").lines[-1]["deleted"] == 1
    planned = docs("sync", corpus, "--removals-only", "--tenant", "acme", "--dry-run", "--json")
    assert planned.lines[-1]["deleted"] == 1
    assert docs("sync", corpus, "--tenant", "acme", "--json").lines[-1]["deleted"] == 1
    assert found(docs) == {"a", "c"}
    assert docs("delete", "a", "c", "--tenant", "globex", "--yes", "--json").lines[-1]["deleted"] == 1
    assert found(docs) == {"a"}


def test_a_variable_that_was_not_set_is_not_all_tenants(docs: Command, corpus: Path) -> None:
    Path("queries.jsonl").write_text('{"_id": "q", "text": "sea"}\n')
    for arguments in (
        ["search", "sea"],
        ["search", "--similar", "a"],
        ["search", "--queries", "queries.jsonl", "-o", "run.trec"],
        ["delete", "a", "--yes"],
        ["delete", "--where", "org=acme", "--yes"],
        ["sync", corpus],
        ["sync", corpus, "--dry-run"],
        ["verify", corpus],
        ["sync", corpus, "--removals-only"],
    ):
        done = docs(*arguments, "--tenant", "")
        assert (done.code, "--tenant is empty" in done.err, done.out) == (2, True, ""), arguments
    assert found(docs) == {"a", "b", "c"}
    done = docs("delete", "a", "--tenant", "acme")
    assert "1 document of source 'default' and tenant 'acme'" in " ".join(done.err.split())


def test_what_cannot_be_is_said(docs: Command, dense_model: Path, corpus: Path) -> None:
    for code, words, arguments in (
        (
            13,
            "`m3index reindex -c docs --tenant-field lang`",
            ["ingest", corpus, "--tenant-field", "lang"],
        ),
        (13, "`m3index reindex -c docs --storage fp16`", ["ingest", corpus, "--storage", "fp16"]),
        (13, "`m3index reindex -c docs --index-class huge`", ["ingest", corpus, "--index-class", "huge"]),
        (2, "--storage takes fp32, fp16 or bf16", ["ingest", corpus, "--storage", "half"]),
        (2, "--index-class takes small, large or huge", ["ingest", corpus, "--index-class", "tiny"]),
        (2, "LEG.NAME=VALUE", ["ingest", corpus, "--index", "M=24"]),
        (2, "needs a Milvus server", ["reindex", "--index-class", "large"]),
        (2, "needs a Milvus server", ["reindex", "--storage", "bf16"]),
    ):
        done = docs(*arguments)
        assert (done.code, words in " ".join(done.err.split())) == (code, True), done.err
    assert docs("ingest", corpus, "-e", dense_model, "-c", "plain").code == 0
    done = docs("search", "sea", "--tenant", "acme", "-c", "plain")
    assert (done.code, "no tenant field" in done.err) == (2, True)
    done = docs("ingest", corpus, "-c", "plain", "--tenant-field", "org")
    assert (done.code, "has no tenant field" in " ".join(done.err.split())) == (13, True)
    assert docs("reindex", "-c", "plain", "--tenant-field", "org").code == 0
    assert found(docs, "--tenant", "acme", "-c", "plain") == {"a", "b"}


def test_the_file_sets_all_of_it(m3index: Command, dense_model: Path, corpus: Path) -> None:
    configure(
        f'encoder = "{dense_model}"\ntenant-field = "org"\nindex-class = "large"\n'
        'index = ["dense.type=HNSW_SQ", "rows.mmap=false"]\n'
    )
    done = m3index("ingest", corpus)
    asked = "--index-class large --index dense.type=HNSW_SQ --index rows.mmap=false needs a Milvus server"
    assert (done.code, asked in " ".join(done.err.split())) == (2, True)
    assert m3index("ingest", corpus, "--uri", "memory:").code == 0, "which takes any"
    assert "m3index.toml" in m3index("config", "show", "ingest").out
    done = m3index("ingest", corpus, "--index", "dense.M=8", "--index-class", "huge")
    assert "--index-class huge --index dense.M=8 needs" in " ".join(done.err.split())


def test_a_corpus_in_an_object_store(m3index: Command, dense_model: Path, s3: str) -> None:
    import boto3

    client = boto3.client("s3")
    bucket = s3.removeprefix("s3://")

    def put(rows: list[dict[str, str]]) -> None:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        client.put_object(Bucket=bucket, Key="cli/docs/all.jsonl.gz", Body=gzip.compress(data))

    put(ROWS)
    done = m3index("ingest", f"{s3}/cli/docs", "-e", dense_model, "--tenant-field", "org", "--json")
    assert (done.code, done.lines[-1]["added"]) == (0, 3), done.err
    put([*ROWS[:2], {"id": "z"}])
    done = m3index("sync", f"{s3}/cli/docs/*.gz", "--json")
    assert (done.code, done.lines[-1]["unchanged"], done.lines[-1]["deleted"]) == (3, 2, 1)
    [bad] = [line for line in done.lines if line["type"] == "error"]
    assert (bad["path"], bad["line"]) == (f"{s3}/cli/docs/all.jsonl.gz", 3)
    assert m3index("verify", f"{s3}/cli/docs", "--json").lines[-1]["checked"] == 2
    put(ROWS[:2])
    done = m3index("reindex", f"default={s3}/cli/docs", "--force", "--json")
    assert (done.code, done.lines[-1]["store_count"]) == (0, 2), done.err
    done = m3index("sync", f"{s3}/cli/nothing", "--json")
    assert (done.code, done.lines[0]["type"]) == (2, "error")
    feed = b'{"op": "delete", "id": "b"}\n'
    client.put_object(Bucket=bucket, Key="cli/feed.jsonl", Body=feed)
    done = m3index("sync", "--changes", f"{s3}/cli/feed.jsonl", "--json")
    assert (done.code, done.lines[-1]["deleted"]) == (0, 1), done.err
    client.close()
