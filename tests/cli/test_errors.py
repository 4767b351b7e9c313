"""What a user can do wrong: one clear line with a remedy, the right exit code, no stack trace."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import free_port
from terminal import ROWS, Command, Done, process_environment

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, dense_model: Path) -> Path:
    from m3index import Document, Index

    path = tmp_path_factory.mktemp("errors") / "ok.db"
    documents = [Document(r["id"], r["text"], "", {"lang": r["lang"], "year": r["year"]}) for r in ROWS]
    with Index(uri=str(path), encoder=str(dense_model)) as index:
        index.ingest(documents, fields={"lang": "str", "year": "int"})
    return path


@pytest.fixture
def fails(m3index: Command, database: Path, corpus: Path) -> Fails:
    """Runs a command that must fail with this code; what it says, in one line."""

    def run(code: int, *arguments: object, **more: str) -> str:
        uri = [] if "--uri" in arguments else ["--uri", database]
        return said(m3index(*arguments, *uri, **more), code)

    return run


def said(done: Done, code: int) -> str:
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "unexpected:" not in done.err
    lines = [line for line in done.err.splitlines() if not line.startswith("quarantined ")]
    if lines[0].startswith("error: "):
        assert len(lines) == 1, lines
        assert len(lines[0]) < 400
    else:  # the parser's own
        assert lines[0].startswith("Usage: ")
    return " ".join(done.err.replace("│", " ").split())


# -- what is asked


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["fox", "-k", 0], "1 to 16,384"),
        (["fox", "-k", 99999], "1 to 16,384"),
        (["fox", "-k", "x"], "error: -k takes a whole number from 1 to 16,384, not 'x'."),
        (["fox", "--depth", 0], "1 to 16,384"),
        (["fox", "--weights", "foo"], "dense=0.7,sparse=0.3"),
        (["fox", "--weights", "foo=1"], "The legs are dense, sparse"),
        (["fox", "--weights", "dense=-1"], "from 0 up"),
        (["fox", "--weights", "dense=nan"], "from 0 up"),
        (["fox", "--weights", "dense=inf"], "from 0 up"),
        (["fox", "--weights", "dense=0,sparse=0"], "above 0"),
        (["fox", "--mode", "both"], "--mode takes hybrid, dense or sparse"),
        (["fox", "--fusion", "sum"], "rrf, evidence, minmax, dbsf, arctan or server"),
        (["fox", "--rrf-k=-1"], "from 0 up"),
        (["fox", "--rrf-k", "nan"], "from 0 up"),
        (["fox", "--format", "xml"], "table, jsonl, ids or trec"),
        (["fox", "--filter", "nothere == 1"], "nothere"),
        (["fox", "--filter", "lang ==="], "filter"),
        (["fox", "--filter", "lang == 'a' +"], "filter"),
        (["fox", "--where", "nothere=1"], "lang, year"),
        (["fox", "--where", "lang"], "Write it as lang=en"),
        (["fox", "--where", "year=abc"], "declared int"),
        (["fox", "--group-by", "nothere"], "lang, year"),
        (["fox", "--similar", "fox-en"], "one of a query, --similar DOC_ID and --queries FILE"),
        (
            ["fox", "--queries", "q.tsv", "-o", "x.trec"],
            "one of a query, --similar DOC_ID and --queries FILE",
        ),
        (["--similar", "fox-en", "--queries", "q.tsv"], "one of a query"),
        (["fox", "-o", "x.trec"], "--queries FILE and --output FILE"),
        ([], "Give exactly one of a query"),
        (["  "], "Give exactly one of a query"),
        (["fox", "--device", "tpu"], "auto, cpu"),
        (["fox", "--precision", "int4"], "fp32"),
        (["fox", "--timeout", 0], "0.1"),
        (["fox", "--nope"], "--mode"),
        (["fox", "-c", "bad name!"], "letters, digits and _"),
        (["fox", "--dim", 99], "32 dimensions"),
    ],
    ids=lambda value: "_".join(map(str, value)) if isinstance(value, list) else "",
)
def test_searches_that_cannot_be(fails: Fails, options: list[str], word: str) -> None:
    assert word in fails(2, "search", *options)


def test_what_is_not_there(fails: Fails) -> None:
    assert "m3index ingest -c other" in fails(10, "search", "fox", "-c", "other")
    assert "m3index ingest -c other" in fails(10, "status", "-c", "other")
    assert "no document 'nobody'" in fails(10, "search", "--similar", "nobody")
    assert "No such command 'nope'" in fails(2, "nope")


def test_a_head_that_is_not_there_is_refused(fails: Fails, corpus: Path, dense_model: Path) -> None:
    assert "cross-encoder" in fails(13, "search", "fox", "--rerank", "colbert")
    message = fails(13, "ingest", corpus, "-e", dense_model, "--sparse", "lexical", "--uri", "new.db")
    assert "--sparse bm25" in message


# -- what is read


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["nothere.jsonl"], "no file, directory or match for 'nothere.jsonl'"),
        (["*.nothere"], "'*.nothere'"),
        ([], "Missing argument"),
        (["strange"], "--input-format"),
        (["empty"], "holds no file to read"),
        (["-", "-"], "only once"),
        (
            ["corpus.jsonl", "--input-format", "xml"],
            "takes jsonl, json, parquet, csv, tsv, text, markdown, html,",
        ),
        (["corpus.jsonl", "--field", "x:blob"], "str, int, float, bool, date, str[]"),
        (["corpus.jsonl", "--field", "text:str"], "another name"),
        (["corpus.jsonl", "--field", "a b:str"], "letters, digits and _"),
        (["corpus.jsonl", "--passage-tokens", "many"], "a number of tokens or full"),
        (["corpus.jsonl", "--passage-tokens", "100000"], "128"),
        (["corpus.jsonl", "--overlap", "100000"], "overlap"),
        (["corpus.jsonl", "--sparse", "dense"], "lexical, bm25 or none"),
        (["corpus.jsonl", "--retry-lock", "soon"], "90s, 5m or 1h"),
        (["corpus.jsonl", "--batch-tokens", "many"], "auto"),
        (["corpus.jsonl", "--max-errors", "-1"], "--max-errors"),
        (["corpus.jsonl", "--quarantine", "empty"], "cannot be written"),
        (["corpus.jsonl", "--quarantine", "corpus.jsonl/x"], "cannot be written"),
    ],
    ids=lambda value: "_".join(map(str, value)) if isinstance(value, list) else "",
)
def test_corpora_that_cannot_be(fails: Fails, tmp_path: Path, options: list[str], word: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "strange").write_text("x")
    assert word in fails(2, "ingest", *options)


def test_damaged_files_are_read_errors_not_crashes(
    m3index: Command, dense_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip at all")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nonsense")
    (tmp_path / "c.csv").write_bytes(b"id,text\n1,\xff\xfe\n2,good\n")
    (tmp_path / "d.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "3", "text": "good"}\n\x00\x01\n')
    done = m3index("ingest", ".", "-e", dense_model, "--uri", tmp_path / "out" / "x.db", "--json")
    assert done.code == 3
    assert done.summary["added"] >= 2
    assert {"a.jsonl.gz", "b.parquet"} <= {
        Path(row["path"]).name for row in done.lines if row["type"] == "error"
    }


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["nothere.jsonl", "-o", "x.trec"], "no file nothere.jsonl"),
        (["q.jsonl"], "--queries FILE and --output FILE"),
        (["q.jsonl", "-o", "x.doc"], ".trec"),
        (["q.jsonl", "-o", "nothere/x.trec"], "cannot be written"),
        (["bad.jsonl", "-o", "x.trec"], "bad.jsonl"),
    ],
    ids=lambda value: "_".join(map(str, value)) if isinstance(value, list) else "",
)
def test_runs_that_cannot_be(fails: Fails, tmp_path: Path, options: list[str], word: str) -> None:
    (tmp_path / "q.jsonl").write_text('{"_id": "1", "text": "fox"}\n')
    (tmp_path / "bad.jsonl").write_text('{"_id": "1", "text": \n')
    assert word in fails(2, "search", "--queries", *options)


# -- models


def test_unknown_models(fails: Fails, corpus: Path, tmp_path: Path) -> None:
    assert "teacher, student" in fails(10, "ingest", corpus, "-e", "nonsense", "--uri", "n.db")
    assert "teacher, student" in fails(10, "ingest", corpus, "-e", "./nodir", "--uri", "n.db")
    assert "no config.json" in fails(10, "ingest", corpus, "-e", tmp_path, "--uri", "n.db")


@pytest.mark.parametrize("model", ["teacher", "some/model"])
def test_no_model_hub(m3index_process: Command, corpus: Path, tmp_path: Path, model: str) -> None:
    """The hub's address is a port that nobody listens on."""
    started = time.monotonic()
    done = m3index_process(
        "ingest", "corpus.jsonl", "-e", model,
        HF_ENDPOINT=f"http://127.0.0.1:{free_port()}", HF_HOME=str(tmp_path / "hf"),
    )  # fmt: skip
    assert "--encoder offline" in said(done, 10)
    assert time.monotonic() - started < 60


def test_a_hub_that_is_switched_off(m3index_process: Command, corpus: Path, tmp_path: Path) -> None:
    done = m3index_process("ingest", "corpus.jsonl", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"))
    assert "--encoder offline" in said(done, 10)


def test_vectors_of_another_space_are_refused(
    fails: Fails, m3index: Command, database: Path, m3_model: Path, corpus: Path
) -> None:
    message = fails(13, "ingest", corpus, "-e", m3_model)
    assert "cannot be compared" in message
    assert "m3index reindex" in message
    assert "without --encoder" in fails(13, "search", "fox", "-e", m3_model)
    assert "(32 dimensions)" in fails(13, "ingest", corpus, "--dim", 16)
    assert m3index("status", "--uri", database, "--json").lines[0]["rows"] == len(ROWS)


def test_a_cut_width_is_found_again(m3index: Command, dense_model: Path, corpus: Path) -> None:
    m3index("ingest", corpus, "-e", dense_model, "--dim", 16)
    assert m3index("status", "--json").lines[0]["dim"] == 16
    assert m3index("search", "fox", "--mode", "dense", "-k", 1, "--json").code == 0
    assert m3index("ingest", corpus, "--json").summary["unchanged"] == len(ROWS)


def test_a_model_directory_is_found_from_elsewhere(
    m3index: Command, dense_model: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dense_model.parent)
    m3index("ingest", corpus, "-e", dense_model.name, "--uri", tmp_path / "x.db")
    monkeypatch.chdir(tmp_path)
    assert m3index("search", "fox", "--uri", "x.db", "-k", 1).code == 0


def test_other_fields_are_refused(fails: Fails, corpus: Path) -> None:
    assert "lang:str, year:int" in fails(13, "ingest", corpus, "--field", "year:str")


# -- the store


@pytest.mark.parametrize(
    ("uri", "word"),
    [
        ("ftp://x", "http://"),
        ("foo.txt", ".db"),
        ("", ".db"),
        ("corpus.jsonl", ".db"),
        ("file.db", "is a file"),
        ("full.db", "other things"),
    ],
)
def test_uris_that_cannot_be(fails: Fails, tmp_path: Path, uri: str, word: str) -> None:
    (tmp_path / "file.db").write_text("sqlite")
    (tmp_path / "full.db").mkdir()
    (tmp_path / "full.db" / "letter.txt").write_text("dear")
    assert word in fails(2, "ingest", "corpus.jsonl", "--uri", uri)


def test_commands_that_only_read_make_no_database(fails: Fails, tmp_path: Path) -> None:
    for arguments in (["status"], ["search", "fox"]):
        assert "m3index ingest" in fails(10, *arguments, "--uri", "folder/new.db")
    assert not (tmp_path / "folder").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "permission" in fails(2, "ingest", "corpus.jsonl", "--uri", "closed/x.db")


def test_a_parent_that_is_a_file(fails: Fails) -> None:
    assert "cannot be made" in fails(2, "ingest", "corpus.jsonl", "--uri", "corpus.jsonl/x.db")


@pytest.mark.parametrize("command", [["status"], ["search", "fox"], ["ingest", "corpus.jsonl"]])
def test_no_server(fails: Fails, command: list[str], dense_model: Path) -> None:
    started = time.monotonic()
    uri = f"http://127.0.0.1:{free_port()}"
    encoder = ["-e", dense_model] if command[0] == "ingest" else []
    message = fails(20, *command, *encoder, "--uri", uri, "--timeout", 2)
    assert uri in message
    assert "that the server runs" in message
    assert time.monotonic() - started < 15


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers(fails: Fails, silent_server: str) -> None:
    started = time.monotonic()
    fails(20, "status", "--uri", silent_server, "--timeout", 2)
    assert time.monotonic() - started < 15


def test_passwords_are_not_shown(fails: Fails) -> None:
    message = fails(20, "status", "--uri", f"http://me:secret@127.0.0.1:{free_port()}", "--timeout", 1)
    assert "secret" not in message


FOREIGN = """
import sys
from milvus_lite.db import MilvusLite
database = MilvusLite(sys.argv[1])
print(1, flush=True)
sys.stdin.read()
"""


def test_a_locked_database_names_its_holder(m3index_process: Command, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FOREIGN, str(tmp_path / "x.db")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=process_environment()
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        message = said(m3index_process("status", "--uri", "x.db"), 11)
        assert holder.stdin is not None
        holder.stdin.close()
    assert f"process {holder.pid}" in message
    assert said(m3index_process("status", "--uri", "x.db"), 10)


# -- with --json


def test_errors_as_json(m3index: Command, corpus: Path) -> None:
    done = m3index("search", "fox", "--uri", "nothere.db", "--json")
    error, summary = done.lines
    assert (done.code, done.err) == (10, f"error: {error['message']}\n"), "cron mails standard error"
    assert (error["type"], error["exit"]) == ("error", 10)
    assert "m3index ingest" in error["message"]
    assert (summary["type"], summary["command"], summary["exit"]) == ("summary", "search", 10)


def test_an_unexpected_error_is_one_line(
    m3index: Command, monkeypatch: pytest.MonkeyPatch, database: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("m3index.service.IndexService.status", broken)
    done = m3index("status", "--uri", database)
    assert done.code == 1
    assert "error: unexpected error: RuntimeError: a bug" in done.err
    assert "M3INDEX_TRACEBACK=1" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in m3index("status", "--uri", database, M3INDEX_TRACEBACK="1").err
    assert json.loads(m3index("status", "--uri", database, "--json").out.splitlines()[0])["exit"] == 1


def test_a_file_that_breaks_off_is_named_behind_many_bad_rows(
    m3index_process: Command, tmp_path: Path
) -> None:
    rows = "".join(f'{{"id": "{i}", "text": ""}}\n' for i in range(12))
    packed = gzip.compress((rows + '{"id": "z", "text": "good"}\n').encode())
    (tmp_path / "t.jsonl.gz").write_bytes(packed[:-12])
    done = m3index_process("sync", "t.jsonl.gz", "-e", "offline", "--quarantine", "q.jsonl")
    assert "further quarantined rows are not shown here" in done.err
    assert "could not read t.jsonl.gz: the gzip data ends too early" in done.err


def test_addresses_without_a_scheme_or_with_a_wrong_port(m3index_process: Command) -> None:
    done = m3index_process("search", "x", "--uri", "localhost:19530")
    assert "write 'http://localhost:19530'" in said(done, 2)
    for option in ("--uri", "--server"):
        done = m3index_process("search", "x", option, "http://localhost:99999")
        assert "The port in 'http://localhost:99999' is not valid." in said(done, 2)
