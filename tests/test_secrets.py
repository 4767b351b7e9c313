"""Tokens come from variables and files, go nowhere in clear, and are shown nowhere."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sinks import sink
from terminal import Command, process_environment

from m3index import Index, connect
from m3index.addresses import ServerAddress, redacted, redacted_text, shown_command
from m3index.errors import UsageError
from m3index.index.lock import hold, lock_path
from m3index.options import read_secret
from m3index.serve.options import RemoteServer
from m3index.store.memory import MemoryStore
from m3index.store.options import Address

FORK = multiprocessing.get_context("fork")
SECRET = "s3cr3t-of-the-user"
PLAIN = ["http://192.0.2.1:19530", "tcp://192.0.2.1:19530", "http://milvus", "HTTP://[2001:db8::1]:1"]


@pytest.mark.parametrize("url", PLAIN)
def test_a_token_does_not_go_in_clear_to_another_machine(url: str) -> None:
    for make in (lambda: Address(uri=url, token=SECRET), lambda: Index("docs", uri=url, token=SECRET)):
        with pytest.raises(UsageError, match="unencrypted") as refused:
            make()
        assert SECRET not in str(refused.value)
    assert Address(uri=url).credentials is None
    assert Address(uri=url, token=SECRET, insecure=True).credentials == SECRET
    if url.lower().startswith("http"):
        with pytest.raises(UsageError, match="--insecure"):
            RemoteServer(server=url, serve_token=SECRET)
        with pytest.raises(UsageError, match="unencrypted"):
            connect(url, SECRET)
        connect(url, SECRET, insecure=True)
        connect(url)


@pytest.mark.parametrize(
    "url",
    ["https://milvus:19530", "http://127.0.0.1:1", "http://[::1]:1", "tcp://localhost:1", "unix:/run/m"],
)
def test_a_token_goes_where_nobody_listens(url: str) -> None:
    assert Address(uri=url, token=SECRET).token == SECRET


def test_a_user_name_in_the_address_is_a_token_too() -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        Address(uri=f"http://root:{SECRET}@milvus:19530")
    Address(uri=f"https://root:{SECRET}@milvus:19530")
    with pytest.raises(UsageError, match="--serve-token-file"):
        connect(f"http://user:{SECRET}@127.0.0.1:1")


def test_the_variable_permits_it(m3index: Command) -> None:
    url = "http://m3index.invalid:1"
    arguments = ("search", "x", "--server", url)
    assert m3index(*arguments, M3INDEX_SERVE_TOKEN=SECRET).code == 2
    assert m3index(*arguments, M3INDEX_SERVE_TOKEN=SECRET, M3INDEX_INSECURE="true").code == 20


# -- files


def test_tokens_are_no_arguments(m3index: Command) -> None:
    for command, flag in (("status", "--token"), ("search", "--serve-token"), ("serve", "--serve-token")):
        done = m3index(command, flag, SECRET)
        assert (done.code, SECRET in done.err) == (2, False)
        assert f"No such option: {flag}" in done.err


def test_tokens_from_files_reach_the_servers(m3index: Command, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")

    def refuse(connection: object) -> None:
        connection.sendall(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")  # type: ignore[attr-defined]

    with sink(refuse) as server:
        m3index("search", "x", "--server", server.url, "--serve-token-file", "token")
        assert f"Bearer {SECRET}".encode() in server.received
    with sink(refuse) as server:
        m3index("search", "x", "--server", server.url, M3INDEX_SERVE_TOKEN_FILE="token")
        assert f"Bearer {SECRET}".encode() in server.received
    assert Address(uri="https://h", token_file=str(tmp_path / "token")).credentials == SECRET


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines\n", b"\xff\xfe", b"x" * 70_000])
def test_a_file_that_holds_no_token(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="the token, and nothing else") as refused:
        read_secret(None, str(path), "M3INDEX_TOKEN", "--token-file")
    assert "two" not in str(refused.value)


def test_a_token_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        Address(uri="https://h", token=SECRET, token_file="x")
    with pytest.raises(UsageError, match="cannot be read"):
        Address(uri="https://h", token_file=str(tmp_path / "none"))
    assert Address(uri="local.db", token_file=str(tmp_path / "none")).uri == "local.db"


# -- what is shown

anything = st.text(st.characters(codec="utf-8"), min_size=1).map(lambda text: text + SECRET)


@given(anything)
def test_no_secret_in_what_is_shown_of_an_address(password: str) -> None:
    url = f"http://root:{password}@host:19530/db"
    assert redacted(url) in ("http://host:19530/db", "http://...")
    assert redacted(f"http://host:1/db?token={password}") in ("http://host:1/db", "http://...")
    assert SECRET not in _said_of(url)
    assert _said_of(url) or ServerAddress.parse(url) == ServerAddress("host", 19530, True)


def _said_of(url: str) -> str:
    """The error about an address, if there is one."""
    try:
        ServerAddress.parse(url)
    except UsageError as error:
        return str(error)
    return ""


@given(st.text(min_size=1))
def test_an_encoded_password_is_no_obstacle(password: str) -> None:
    parsed = ServerAddress.parse(f"https://root:{quote(password, safe='', errors='replace')}@host:19530")
    assert (parsed.host, parsed.has_credentials) == ("host", True)


@pytest.mark.parametrize("character", ["#", "/", "?", "@", "[", "%"])
def test_an_odd_password_is_a_plain_error(m3index_process: Command, character: str) -> None:
    uri = f"http://root:xq{character}{SECRET}@127.0.0.1:1"
    done = m3index_process("status", "--uri", uri, "--timeout", 0.5)
    assert done.code in (2, 12, 20), done
    assert "unexpected" not in done.err
    assert "root" not in done.err + done.out
    assert SECRET not in done.err + done.out
    assert "xq" not in done.err


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1?token=SECRET", "http://127.0.0.1:1/db#SECRET"])
def test_a_query_in_an_address_is_refused_and_not_shown(m3index: Command, uri: str) -> None:
    for arguments in (("status", "--uri", uri), ("search", "x", "--server", uri)):
        done = m3index(*arguments)
        assert (done.code, "SECRET" in done.err) == (2, False), done


def test_config_show_hides_passwords(m3index: Command) -> None:
    url = f"https://root:a/b{SECRET}@host:1/db?token={SECRET}"
    out = m3index("config", "show", "status", M3INDEX_URI=url, M3INDEX_TOKEN=SECRET).out
    assert SECRET not in out
    assert "(set)" in out
    assert "https://host:1/db" in out


def test_texts_of_other_programs() -> None:
    said = f"Illegal uri: [http://root:{SECRET}@host:1/x?t={SECRET}], expected form 'https://user:pwd@host'"
    assert redacted_text(said) == "Illegal uri: [http://host:1/x expected form 'https://host'"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/v/bin/python3.11", "/v/bin/m3index", "serve", "--serve-token", SECRET], "m3index serve"),
        (["python", "-u", "-m", "m3index", "search", SECRET], "m3index search"),
        (["m3index", "--profile", SECRET, "sync"], "m3index"),
        (["python", "-c", SECRET], "python"),
        (["python", "/home/x/job.py", SECRET], "job.py"),
        (["milvus-lite", "server", "--token", SECRET], "milvus-lite"),
        (["/bin/sh", "-c", SECRET], "sh"),
        ([], "a process"),
        (["m3index", SECRET], "m3index"),
    ],
)  # fmt: skip
def test_of_a_command_line_only_the_program_is_shown(words: list[str], shown: str) -> None:
    assert shown_command(words) == shown


FOREIGN = """
import sys
from milvus_lite.db import MilvusLite
database = MilvusLite(sys.argv[1])
print(1, flush=True)
sys.stdin.read()
"""


def test_the_holder_of_a_database_is_named_without_its_arguments(
    m3index_process: Command, tmp_path: Path
) -> None:
    script = tmp_path / "holder.py"
    script.write_text(FOREIGN)
    command = [sys.executable, str(script), str(tmp_path / "x.db"), "--serve-token", SECRET]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=process_environment()
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        done = m3index_process("status", "--uri", "x.db", "--json")
        assert holder.stdin is not None
        holder.stdin.close()
    assert done.code == 11
    assert f"process {holder.pid} (holder.py)" in done.err
    assert SECRET not in done.out + done.err


# -- forged lines


def test_a_name_of_a_file_forges_no_line(m3index: Command, tmp_path: Path, dense_model: Path) -> None:
    name = "a\nerror: everything is lost\x1b[2J\u2028b.jsonl"
    (tmp_path / name).write_text('{"id": "x\\nwarning: forged", "text": ""}\n{"id": "1", "text": "fox"}\n')
    done = m3index("ingest", name, "-e", dense_model)
    assert done.code == 3
    assert not [
        line for line in done.err.splitlines() if line.startswith(("error: every", "warning: forged"))
    ]
    assert "a\\nerror: everything is lost" in done.err


def test_a_logged_message_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    from m3index.progress import Logged
    from m3index.types import Place, Rejected

    Logged().rejected(Rejected(Place("a\nb"), "no text\nCRITICAL", None))
    Logged().warning("a\r\nb %s")
    assert [record.getMessage() for record in caplog.records] == [
        "could not read a\\nb: no text\\nCRITICAL",
        "a\\r\\nb %s",
    ]


# -- locks


def test_a_lock_is_not_written_through_a_link(m3index: Command, corpus: Path, dense_model: Path) -> None:
    """A database that was downloaded may bring links."""
    assert m3index("ingest", corpus, "-e", dense_model).code == 0
    victim = corpus.parent / "victim"
    victim.write_text("of the user")
    for name in ("m3index-docs.lock", "m3index.host"):
        path = corpus.parent / "m3index.db" / name
        path.unlink(missing_ok=True)
        path.symlink_to(victim)
    done = m3index("ingest", corpus)
    assert (done.code, victim.read_text()) == (2, "of the user")
    assert "m3index-docs.lock cannot be opened: it is a link" in done.err


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user")
def test_folders_of_locks_that_cannot_be_used(tmp_path: Path) -> None:
    """Plain errors for a runtime directory without permission, and for a lock of another user."""
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith(f"{tempfile.gettempdir()}/"):
            folder.chmod(0o755)
    closed, other, kept = tmp_path / "closed", tmp_path / "other", tmp_path / "kept"
    closed.mkdir(mode=0o555)
    (other / "m3index-65534").mkdir(parents=True)
    (kept / "m3index-65534").mkdir(parents=True)
    name = lock_path("memory:", "docs").name
    os.chown(kept / "m3index-65534", 65534, 65534)
    (kept / "m3index-65534" / name).touch(mode=0o600)
    said = {folder.name: _of_nobody(folder) for folder in (closed, other, kept)}
    assert "cannot be made: Permission denied" in said["closed"]
    assert "belongs to another user" in said["other"]
    assert f"{name} cannot be opened: Permission denied" in said["kept"]


def _of_nobody(runtime: Path) -> str:
    """What a run of another user is told that locks in this runtime directory."""
    ours, theirs = FORK.Pipe()

    def lock() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
        os.getpid = lambda: pid  # the name of the lock of a store in memory
        try:
            with hold(MemoryStore(), "docs", None, "m3index sync"):
                theirs.send("held")
        except Exception as error:
            theirs.send(f"{type(error).__name__}: {error}")

    pid = os.getpid()
    process = FORK.Process(target=lock)
    process.start()
    process.join(30)
    said = str(ours.recv())
    assert said.startswith("UsageError: "), said
    return said
