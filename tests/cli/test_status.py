"""`m3index status`, `models list`, `--version`, `--help`, completion."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from terminal import Command

import m3index as package
from m3index import schema
from m3index.cli.apps import all_commands
from m3index.cli.command import PANELS
from m3index.cli.reference import click_commands

GROUPS = ("models", "shards", "generations", "collections", "config")
MODEL = Draft202012Validator(schema.load("model.schema.json"))


def test_status(m3index: Command, dense_model: Path, corpus: Path) -> None:
    m3index("ingest", corpus, "-e", dense_model, "--field", "lang:str", "-c", "docs")
    status, summary = m3index("status", "-c", "docs", "--json").lines
    assert (status["type"], status["collection"], status["generation"]) == ("status", "docs", 1)
    assert (status["rows"], status["documents"], status["sparse"], status["dim"]) == (7, 7, "bm25", 32)
    assert (status["encoder"], status["schema_version"]) == (str(dense_model), schema.version())
    assert status["last_success"] is not None
    assert summary["exit"] == 0

    out = m3index("status", "-c", "docs").out
    for word in ("rows", "encoder", "sparse", "schema version", "last success", "lang:str", "bm25"):
        assert word in out
    assert all(cell_len(line) <= 80 and line == line.rstrip() for line in out.splitlines())


def test_models(m3index: Command) -> None:
    lines = m3index("models", "list", "--json").lines
    for line in lines[:-1]:
        MODEL.validate(line)
    names = [line["name"] for line in lines[:-1]]
    assert names == ["teacher", "student", "ko", "e5-small", "e5-mistral", "offline", "offline-en"]
    out = m3index("models", "list").out
    assert "BAAI/bge-m3" in out
    assert all(cell_len(line) <= 80 for line in out.splitlines())


def test_models_of_one(m3index: Command, m3_model: Path) -> None:
    assert [line["name"] for line in m3index("models", "list", "ko", "--json").lines[:-1]] == ["ko"]
    line = m3index("models", "list", m3_model, "--json").lines[0]
    MODEL.validate(line)
    assert (line["dim"], line["limit"], line["outputs"]) == (32, 128, ["dense", "lexical", "multi_vector"])
    unknown = m3index("models", "list", "nonsense")
    assert unknown.code == 10
    assert "teacher, student" in unknown.err


def test_version(m3index: Command) -> None:
    assert m3index("--version").out == f"m3index {package.__version__}\n"


@pytest.mark.parametrize("name", ["", *GROUPS, *click_commands()])
def test_help_fits_80_columns(m3index: Command, name: str) -> None:
    done = m3index(*name.split(), "-h")
    assert done.code == 0
    assert done.out == m3index(*name.split(), "--help").out
    assert "\x1b" not in done.out
    assert all(cell_len(line) <= 80 for line in done.out.splitlines())


def test_the_order_of_the_commands(m3index: Command) -> None:
    """By headings, everyday work first: the order of the list is that of a user's needs."""
    headings: dict[str, list[str]] = {}
    for line in m3index("--help").out.splitlines():
        if line.startswith("╭─ "):
            headings[line.strip("╭─╮ ")] = listed = []
        elif line.startswith("│ ") and line[2:3].strip():
            listed.append(line.split()[1])
    headings.pop("Options")
    assert list(headings.items()) == [
        ("Everyday", ["ingest", "sync", "search", "status", "verify", "delete", "reindex"]),
        ("Quality", ["eval", "tune", "why"]),
        ("Models", ["models"]),
        ("Operations", ["serve", "mcp", "shards", "generations", "collections", "config", "doctor"]),
    ]


def test_the_options_of_a_command_come_first(m3index: Command) -> None:
    """Its own before those that all commands have; a default is told of in words."""
    out = m3index("search", "--help").out
    headings = [line.strip("╭─╮ ") for line in out.splitlines() if line.startswith("╭─ ")]
    assert headings == [
        *("Arguments", "Options", "Query", "Search", "Filter", "Rerank", "Server", "Store", "Encoder"),
        "Output",
    ]
    assert "Usage: m3index search [OPTIONS] [QUERY]..." in out
    assert "Maximum number of hits. Default: 10." in out
    assert "default: (" not in out
    assert "M3INDEX_COLLECTION" in out
    assert "M3INDEX_WHERE" not in out


def test_every_heading_has_its_place() -> None:
    panels = {option.panel for made in all_commands().values() for option in made.options.values()}
    assert panels == set(PANELS)


def test_no_command_shows_the_help(m3index: Command) -> None:
    done = m3index()
    assert "ingest" in done.out + done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(m3index_process: Command, shell: str) -> None:
    done = m3index_process("--show-completion", shell)
    assert done.code == 0
    assert "m3index" in done.out
