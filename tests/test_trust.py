"""An m3index.toml that lies in the working directory is a stranger's file until the user trusts it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from sinks import sink
from terminal import Command, configure, process_environment

from m3index import trust
from m3index.cli.command import COMMANDS
from m3index.errors import UsageError

SECRET = "a-secret-of-the-user"
HARMLESS = {
    "boost", "complete", "depth", "diversity", "facets_over", "folds", "format", "fusion", "group_by", "json",
    "k", "measure", "measures", "mode", "modes", "passages", "quiet", "rerank_depth", "rerank_weights",
    "rrf_k", "sort", "syntax", "tag", "test", "timeout", "weights",
}  # fmt: skip


def test_what_a_file_may_set_without_trust() -> None:
    """No address, path, host, model, collection or limit is among it."""
    options = [option for command in COMMANDS.values() for option in command.options.values()]
    assert {option.name for option in options if option.harmless} == HARMLESS
    assert {option.name for option in options if not option.harmless} & HARMLESS == set()


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('uri = "{url}"\ntimeout = 1', ["status"]),
        ('[search]\nserver = "{url}"', ["search", "fox"]),
        ('[profile.p]\nserver = "{url}"', ["--profile", "p", "status"]),
    ],
)
def test_a_found_file_sends_the_tokens_nowhere(
    m3index_process: Command, tmp_path: Path, text: str, arguments: list[str]
) -> None:
    with sink() as stranger:
        (tmp_path / "m3index.toml").write_text(text.format(url=stranger.url))
        done = m3index_process(*arguments, M3INDEX_TOKEN=f"root:{SECRET}", M3INDEX_SERVE_TOKEN=SECRET)
        assert stranger.received == b""
    assert done.code == 2
    assert "Read it, then run `m3index config trust`" in done.err
    assert SECRET not in done.err + done.out


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_found_file_overwrites_no_other(
    m3index_process: Command, tmp_path: Path, as_json: list[str]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("of the user")
    (tmp_path / "m3index.toml").write_text(f'metrics-file = "{victim}"\n')
    done = m3index_process("sync", "corpus.jsonl", *as_json)
    assert (done.code, victim.read_text()) == (2, "of the user")
    assert "sets metrics_file" in done.err
    if as_json:
        assert (done.summary["command"], done.summary["exit"]) == ("sync", 2)


@pytest.mark.parametrize(
    ("text", "arguments", "names"),
    [
        ('[serve]\nhost = "0.0.0.0"', ["serve"], "host"),
        ('encoder = "evil/model"\n[search]\nrerank = "evil/model"', ["search", "x"], "encoder and rerank"),
        ('[sync]\nmax-delete = "100%"', ["sync", "x"], "max_delete"),
        ('[eval]\nplot = "x.svg"', ["eval", "--qrels", "q", "--queries", "q"], "plot"),
        ("insecure = true", ["status"], "insecure"),
        ('token-file = "/etc/passwd"', ["status"], "token_file"),
    ],
)
def test_what_needs_trust_is_named(
    m3index: Command, tmp_path: Path, text: str, arguments: list[str], names: str
) -> None:
    (tmp_path / "m3index.toml").write_text(text + "\n")
    done = m3index(*arguments)
    assert (done.code, f"m3index.toml in this folder sets {names}, and" in done.err) == (2, True), done


def test_harmless_values_need_no_trust_and_what_is_overridden_neither(
    m3index: Command, tmp_path: Path
) -> None:
    (tmp_path / "m3index.toml").write_text('uri = "http://192.0.2.1:1"\n[search]\nk = 2\nmode = "dense"\n')
    assert m3index("search", "fox", "--uri", "none.db").code == 10
    assert m3index("search", "fox", M3INDEX_URI="none.db").code == 10
    assert m3index("search", "fox").code == 2
    shown = {line["name"]: line for line in m3index("config", "show", "search", "--json").lines[:-1]}
    assert shown["uri"]["from"] == "m3index.toml, not trusted"
    assert m3index("models", "list").code == 0, "takes nothing from it"


def test_trust_holds_until_the_file_changes(m3index: Command, tmp_path: Path) -> None:
    path = tmp_path / "m3index.toml"
    path.write_text('uri = "none.db"\n')
    assert m3index("status").code == 2
    done = m3index("config", "trust")
    assert (done.code, done.err) == (0, "m3index.toml is trusted until it changes.\n")
    assert m3index("status").code == 10
    path.write_text('uri = "none.db"\ncollection = "other"\n')
    assert m3index("status").code == 2
    path.write_text('uri = "none.db"\n')
    assert m3index("status").code == 10
    path.rename(tmp_path / "moved")
    (tmp_path / "sub").mkdir()
    (tmp_path / "moved").rename(tmp_path / "sub" / "m3index.toml")
    os.chdir(tmp_path / "sub")
    assert m3index("status").code == 2, "the same words elsewhere are another file"


def test_a_named_file_is_trusted(m3index: Command, tmp_path: Path) -> None:
    (tmp_path / "m3index.toml").write_text('uri = "none.db"\n')
    assert m3index("--config", "m3index.toml", "status").code == 10
    assert m3index("status", M3INDEX_CONFIG="m3index.toml").code == 10
    own = tmp_path / "home" / "m3index"
    own.mkdir(parents=True)
    (tmp_path / "m3index.toml").rename(own / "m3index.toml")
    assert m3index("status", XDG_CONFIG_HOME=str(tmp_path / "home")).code == 10


def test_what_m3index_writes_is_trusted(m3index: Command, tmp_path: Path) -> None:
    from m3index import settings

    assert m3index("config", "init", "--yes").code == 0
    assert m3index("status").code == 10
    settings.write_table(Path("m3index.toml"), "search", {"k": 5})
    assert m3index("status").code == 10
    Path("m3index.toml").write_text('uri = "http://192.0.2.1:1"\n')
    settings.write_table(Path("m3index.toml"), "search", {"k": 5})
    assert m3index("status").code == 2, "a stranger's file does not become trusted by a change"


def test_a_file_of_no_use_is_not_trusted(m3index: Command, tmp_path: Path) -> None:
    assert m3index("config", "trust").code == 2
    (tmp_path / "m3index.toml").write_text("uri = \n")
    assert m3index("config", "trust").code == 2


def test_a_state_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot be written"):
        trust.remember(tmp_path / "m3index.toml", b"")


def ask(folder: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Runs a command in a terminal and answers its question."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "m3index", *arguments],
        stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=process_environment(COLUMNS="200"),
    )  # fmt: skip
    os.close(slave)
    os.write(master, answer.encode())
    said = b""
    try:
        while block := os.read(master, 4096):
            said += block
    except OSError:  # the terminal is closed
        pass
    os.close(master)
    return process.wait(60), said.decode()


def test_a_terminal_is_asked_once(tmp_path: Path) -> None:
    (tmp_path / "m3index.toml").write_text('uri = "http://user:hush@192.0.2.1:1"\ntimeout = 0.5\n')
    code, said = ask(tmp_path, "n\n", "status", "--insecure")
    assert (code, "uri = http://192.0.2.1:1" in said, "hush" in said) == (2, True, False), said
    (tmp_path / "m3index.toml").write_text('uri = "none.db"\n')
    code, said = ask(tmp_path, "y\n", "status")
    assert (code, "Do you trust the whole file, until it changes?" in said) == (10, True), said
    code, said = ask(tmp_path, "", "status")
    assert (code, "Do you trust" in said) == (10, False), said


def test_the_helper_of_the_tests_is_the_owner(m3index: Command, tmp_path: Path) -> None:
    configure('uri = "none.db"\n')
    assert m3index("status").code == 10
