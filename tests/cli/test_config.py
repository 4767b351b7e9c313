"""`m3index config show`, `m3index config init`, and values from m3index.toml."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from rich.cells import cell_len
from terminal import Command, configure

from m3index import schema

EVENT = Draft202012Validator(schema.load("event.schema.json"))


def shown(
    m3index: Command, command: str, *first: object, **environment: str
) -> dict[str, tuple[object, str]]:
    done = m3index(*first, "config", "show", *([command] if command else []), "--json", **environment)
    assert done.code == 0, done.err
    for line in done.lines:
        EVENT.validate(line)
    return {line["name"]: (line["value"], line["from"]) for line in done.lines if line["type"] == "setting"}


def test_the_origin_is_the_file_that_was_read(m3index: Command) -> None:
    configure('uri = "here.db"\n')
    Path("other.toml").write_text('uri = "other.db"\n')
    assert shown(m3index, "status")["uri"] == ("here.db", "m3index.toml")
    assert shown(m3index, "status", "--config", "other.toml")["uri"] == ("other.db", "other.toml")


def test_an_empty_variable_counts_for_nothing(m3index: Command) -> None:
    configure('tenant = "acme"\n')
    assert shown(m3index, "search", M3INDEX_TENANT="")["tenant"] == ("acme", "m3index.toml")
    assert shown(m3index, "search", M3INDEX_TENANT="x")["tenant"] == ("x", "M3INDEX_TENANT")


def test_a_profile_sets_the_layout(m3index: Command) -> None:
    configure(
        '[profile.s]\nstorage = "fp16"\nindex-class = "large"\nindex = ["dense.nlist=16", "rows.mmap=true"]\n'
        'tenant-field = "org"\nprecision = "int8"\n[profile.s.search]\ntenant = "acme"\n'
    )
    found = shown(m3index, "ingest", "--profile", "s")
    names = ("storage", "index_class", "tenant_field", "precision", "tenant")
    assert [found[name][0] for name in names] == ["fp16", "large", "org", "int8", "all"]
    assert shown(m3index, "search", "--profile", "s")["tenant"][0] == "acme"
    told = m3index("--profile", "s", "config", "show", "ingest").out
    assert "dense.nlist=16 rows.mmap=true  (m3index.toml)" in told


def test_what_may_be_repeated_may_be_one_word(m3index: Command, dense_model: Path, corpus: Path) -> None:
    configure(f'encoder = "{dense_model}"\nindex = "dense.M=8"\n')
    done = m3index("ingest", corpus)
    assert (done.code, "--index dense.M=8 needs a Milvus server" in done.err) == (2, True)


def test_names_are_those_of_the_file(m3index: Command) -> None:
    """What `config show` prints can be written into m3index.toml as it is."""
    configure('max_delete = "5%"\n[search]\nk = 5\n[fields]\nlang = "str"\n')
    found = shown(m3index, "sync")
    assert found["max_delete"] == ("5%", "m3index.toml")
    assert found["fields"] == (["lang:str"], "m3index.toml")
    for name in found:
        configure(f'[sync]\n{name} = "x"\n')
        assert m3index("config", "show", "sync").code == (2 if name == "token" else 0), name


def test_what_is_required_or_a_flag_only_is_not_shown(m3index: Command) -> None:
    done = m3index("config", "show")
    assert done.code == 0
    assert "object at" not in done.out
    assert all(cell_len(line) <= 80 and line == line.rstrip() for line in done.out.splitlines())
    names = set(shown(m3index, ""))
    assert not names & {"out", "corpus", "where", "filter", "force", "dry_run", "yes", "similar", "ids"}


def test_a_name_that_commands_differ_in_is_shown_for_each(m3index: Command) -> None:
    configure("[search]\nk = 5\n")
    ks = {
        (line["value"], line["from"], tuple(line["commands"]))
        for line in m3index("config", "show", "--json").lines
        if line.get("name") == "k"
    }
    assert ks == {(5, "m3index.toml", ("search", "why")), ("100", "default", ("eval",))}
    words = m3index("config", "show").out.split("\n")
    assert [" ".join(line.split()) for line in words if line.startswith("k ")] == [
        "k 100 (default; eval)",
        "k 5 (m3index.toml; search, why)",
    ]


def test_the_table_of_a_command_in_a_group(m3index: Command) -> None:
    configure('storage = "bf16"\n[shards.encode]\nstorage = "fp16"\nactors = 3\n')
    assert shown(m3index, "ingest")["storage"] == ("bf16", "m3index.toml")
    found = shown(m3index, "shards encode")
    assert (found["storage"], found["actors"]) == (("fp16", "m3index.toml"), (3, "m3index.toml"))


def test_an_encode_goes_by_its_table(m3index: Command, dense_model: Path, corpus: Path) -> None:
    configure(
        f'encoder = "{dense_model}"\n[shards.encode]\nshard_documents = 2\nstorage = "fp16"\n'
        "[profile.wide.shards.encode]\nshard_documents = 100\n"
    )
    done = m3index("shards", "encode", corpus, "-o", "two", "--json")
    assert (done.code, done.summary["written"]) == (0, 4), done
    corpus_record = json.loads(Path("two/corpus.json").read_text("utf-8"))
    assert corpus_record["fingerprint"]["dense"] == "float16"
    done = m3index("--profile", "wide", "shards", "encode", corpus, "-o", "all", "--json")
    assert (done.code, done.summary["written"]) == (0, 1), done


def test_a_collection_is_not_dropped_by_the_file(m3index: Command) -> None:
    configure('collection = "docs"\n')
    done = m3index("collections", "drop", "--yes", M3INDEX_COLLECTION="docs")
    assert (done.code, "Missing argument" in done.err) == (2, True)
    assert "collection" not in shown(m3index, "collections drop")


@pytest.mark.parametrize("given", ["init", "config show nothing", "plan", "prune", "run", "unlock", "bench"])
def test_what_is_no_command(m3index: Command, given: str) -> None:
    done = m3index(*(given.split(maxsplit=2)))
    assert done.code == 2
    assert "No such command" in done.err or "There is no command 'nothing'" in done.err


@pytest.mark.parametrize("name", ["docs", "my docs"])
def test_init_asks_for_a_name_that_a_collection_can_have(
    m3index: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("m3index.cli.config.is_interactive", lambda: True)
    done = m3index("config", "init", stdin=f"http://h:1\n{name}\noffline\n")
    if name == "docs":
        written = tomllib.loads(Path("m3index.toml").read_text("utf-8"))
        assert (written["uri"], written["collection"], written["encoder"]) == (
            "http://h:1",
            "docs",
            "offline",
        )
    else:
        assert (done.code, "letters, digits and _" in done.err) == (2, True)
        assert not Path("m3index.toml").exists()


def test_every_name_in_the_written_file_is_one(m3index: Command) -> None:
    assert m3index("config", "init", "--yes").code == 0
    text = Path("m3index.toml").read_text("utf-8")
    lines = [
        line.removeprefix("# ") if " = " in line and line.count("=") < 4 else line
        for line in text.splitlines()
    ]
    configure("\n".join(lines) + "\n")
    assert shown(m3index, "ingest")["tenant_field"] == ("org", "m3index.toml")
