"""The order flags, M3INDEX_* variables, profile, m3index.toml, defaults, and errors in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import Command, configure

from m3index import settings
from m3index.errors import UsageError
from m3index.settings import Located

OPTIONS = {
    "search": ["uri", "k", "mode", "collection", "where"],
    "ingest": ["uri", "collection", "passage_tokens", "fields"],
}
COMMANDS = tuple(OPTIONS)
NESTED = {"ingest": ["storage", "fields"], "shards encode": ["storage", "actors"], "shards load": ["storage"]}


def defaults(folder: Path, text: str, profile: str | None = None) -> dict[str, dict[str, object]]:
    path = folder / "m3index.toml"
    path.write_text(text, "utf-8")
    return settings.read(path, profile, COMMANDS).defaults(OPTIONS)


def test_common_names_go_to_the_commands_that_have_them(tmp_path: Path) -> None:
    found = defaults(tmp_path, 'uri = "a.db"\nk = 3\npassage-tokens = "full"\n')
    assert found == {"search": {"uri": "a.db", "k": 3}, "ingest": {"uri": "a.db", "passage_tokens": "full"}}


def test_the_table_of_a_command(tmp_path: Path) -> None:
    found = defaults(tmp_path, 'collection = "a"\n[search]\ncollection = "b"\nk = 5\n')
    assert found == {"search": {"collection": "b", "k": 5}, "ingest": {"collection": "a"}}


def test_a_profile_overrides_both(tmp_path: Path) -> None:
    text = (
        'collection = "a"\n[search]\ncollection = "b"\nk = 5\n'
        '[profile.one]\ncollection = "c"\n[profile.one.search]\nk = 6\n'
        '[profile.two.search]\ncollection = "d"\n'
    )
    assert defaults(tmp_path, text, "one") == {
        "search": {"collection": "c", "k": 6},
        "ingest": {"collection": "c"},
    }
    assert defaults(tmp_path, text, "two") == {
        "search": {"collection": "d", "k": 5},
        "ingest": {"collection": "a"},
    }


def test_fields_of_one_command(tmp_path: Path) -> None:
    found = defaults(tmp_path, '[fields]\nlang = "str"\n[ingest.fields]\nyear = "int"\n')
    assert found == {"search": {}, "ingest": {"fields": ["year:int"]}}
    with pytest.raises(UsageError, match="no type 'day'"):
        defaults(tmp_path, '[ingest.fields]\nday = "day"\n')


def nested(folder: Path, text: str, profile: str | None = None) -> dict[str, dict[str, object]]:
    path = folder / "m3index.toml"
    path.write_text(text, "utf-8")
    return settings.read(path, profile, NESTED.keys()).defaults(NESTED)


def test_the_table_of_a_command_in_a_group(tmp_path: Path) -> None:
    text = (
        'storage = "bf16"\n[shards.encode]\nstorage = "fp16"\nactors = 2\n'
        "[profile.p.shards.encode]\nactors = 3\n[profile.q]\nstorage = 'fp32'\n"
    )
    encode = {"storage": "fp16", "actors": 2}
    others = {"ingest": {"storage": "bf16"}, "shards load": {"storage": "bf16"}}
    assert nested(tmp_path, text) == {**others, "shards encode": encode}
    assert nested(tmp_path, text, "p") == {**others, "shards encode": encode | {"actors": 3}}
    assert nested(tmp_path, text, "q") == {
        "ingest": {"storage": "fp32"},
        "shards encode": {"storage": "fp32", "actors": 2},
        "shards load": {"storage": "fp32"},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[shards.encod]\nactors = 3",
            r"\[shards.encod\] is not the name of a command. Use shards encode, shards load",
        ),
        ("[shards]\nactors = 3", r"\[shards.actors\] is not the name of a command. Use shards encode"),
        ("[shards.load]\nactors = 3", r"\[shards load\] has no option 'actors'"),
        ("[shards.encode]\ntoken = 'x'", "M3INDEX_TOKEN"),
        ("[profile.p.shards.encode]\ntoken = 'x'", "M3INDEX_TOKEN"),
        ("[profile.p.shard.encode]\nactors = 3", r"\[shard\] is not the name of a command"),
        ("[encode]\nactors = 3", r"\[encode\] is not the name of a command"),
    ],
)
def test_an_invalid_table_in_a_group(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        nested(tmp_path, text)


def test_fields(tmp_path: Path) -> None:
    found = defaults(
        tmp_path, '[fields]\nlang = "str"\nyear = "int"\n[profile.p.fields]\ntags = "str[]"\n', "p"
    )
    assert found == {"search": {}, "ingest": {"fields": ["lang:str", "year:int", "tags:str[]"]}}


@pytest.mark.parametrize(
    ("text", "profile", "message"),
    [
        ("colection = 'x'", None, "no command has an option 'colection'"),
        ("[search]\npassage_tokens = 5", None, r"\[search\] has no option 'passage_tokens'"),
        ("[serch]\nk = 5", None, r"\[serch\] is not the name of a command"),
        ("token = 'root:Milvus'", None, "M3INDEX_TOKEN"),
        ("[search]\ntoken = 'root:Milvus'", None, "M3INDEX_TOKEN"),
        ("[profile.p]\ntoken = 'root:Milvus'", "p", "M3INDEX_TOKEN"),
        ("[profile.p]\ntoken = 'root:Milvus'", None, "M3INDEX_TOKEN"),
        ("fields = 'lang'", None, "must be a table"),
        ("[fields]\nlang = 'text'", None, "no type 'text'"),
        ("[fields]\nlang = 5", None, "no type '5'"),
        ("[fields]\n'a b' = 'str'", None, "letters, digits and _"),
        ("k = ", None, "m3index.toml"),
        ("k = 1", "p", "no .profile.p.. Its profiles are: none"),
        ("[profile.a]\n[profile.b]", "p", "profiles are: a, b"),
        ("profile = 5", None, "must be a table"),
        ("[profile]\np = 5", "p", "must be a table"),
    ],
)  # fmt: skip
def test_an_invalid_file(tmp_path: Path, text: str, profile: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        defaults(tmp_path, text, profile)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no configuration file"):
        settings.read(tmp_path / "nothere.toml", None, COMMANDS)
    with pytest.raises(UsageError, match="--config"):
        settings.read(None, "laptop", COMMANDS)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"binary\.toml"):
        settings.read(tmp_path / "binary.toml", None, COMMANDS)


def test_the_path_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert settings.find() is None
    user = tmp_path / "home" / "m3index" / "m3index.toml"
    user.parent.mkdir(parents=True)
    user.touch()
    assert settings.find() == Located(user)
    Path("m3index.toml").touch()
    assert settings.find() == Located(Path("m3index.toml"), is_found=True)
    monkeypatch.setenv("M3INDEX_CONFIG", "other.toml")
    assert settings.find() == Located(Path("other.toml"))


# -- through the command line


def test_the_order(m3index: Command, tmp_path: Path) -> None:
    """The error about the missing collection shows which value is in effect."""

    def collection(*arguments: str, **environment: str) -> str:
        done = m3index(*arguments, **environment)
        assert done.code == 10
        return done.err.split("'")[1]

    (tmp_path / "x.db").mkdir()
    status = ("status", "--uri", "x.db")
    assert collection(*status) == "docs"
    configure('collection = "file"\n[profile.p]\ncollection = "profile"\n')
    assert collection(*status) == "file"
    assert collection("--profile", "p", *status) == "profile"
    assert collection(*status, M3INDEX_PROFILE="p") == "profile"
    assert collection("--profile", "p", *status, M3INDEX_COLLECTION="variable") == "variable"
    assert collection("--profile", "p", *status, "-c", "flag", M3INDEX_COLLECTION="variable") == "flag"
    (tmp_path / "other.toml").write_text('collection = "other"\n')
    assert collection("--config", "other.toml", *status) == "other"
    assert collection(*status, M3INDEX_CONFIG="other.toml") == "other"


def test_fields_of_the_file_are_declared(m3index: Command, dense_model: Path, corpus: Path) -> None:
    configure(
        f'encoder = "{dense_model}"\nuri = "mine.db"\n[fields]\nlang = "str"\n[search]\nk = 2\n'
        'format = "ids"\nmode = "dense"\n'
    )
    assert m3index("ingest", corpus).code == 0
    assert (corpus.parent / "mine.db").is_dir()
    assert sorted(m3index("search", "fox", "--where", "lang=en").out.split()) == ["book-en", "fox-en"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = true", "no command has an option 'colour'"),
        ("token = 'x'", "M3INDEX_TOKEN"),
        ("k = 'many'", "-k takes a whole number"),
        ("k = 1.5", "-k takes a whole number"),
        ("[search]\nk = [1]", "-k"),
        ("[search]\npassages = 'perhaps'", "--passages"),
        ("[search]\nweights = {dense = 1}", "--weights"),
        ("[search]\nwhere = 'lang=en'", "[search] has no option 'where' that a file can set"),
        ("filter = 'year > 1'", "no command has an option 'filter' that a file can set"),
        ("[search]\nsource = 'a'", "[search] has no option 'source' that a file can set"),
        ("dry_run = true", "no command has an option 'dry_run' that a file can set"),
        ("[sync]\nforce = true", "[sync] has no option 'force' that a file can set"),
        ("[delete]\nyes = true", "[delete] has no option 'yes' that a file can set"),
        ("[verify]\nrepair = true", "[verify] has no option 'repair' that a file can set"),
        ("[sync]\nremovals-only = true", "[sync] has no option 'removals_only' that a file can set"),
        ("[tune]\nwrite = true", "[tune] has no option 'write' that a file can set"),
    ],
)
def test_a_bad_file_is_one_line(m3index: Command, tmp_path: Path, text: str, message: str) -> None:
    configure(text)
    done = m3index("search", "fox")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_bad_file_does_not_prevent_help(m3index: Command, tmp_path: Path) -> None:
    configure("colour = true")
    assert m3index("--help").code == 0
    assert m3index("--version").code == 0


def test_a_byte_order_mark_and_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "m3index.toml"
    path.write_bytes(b"\xef\xbb\xbf[search]\nk = 3\n")
    assert settings.read(path, None, COMMANDS).commands["search"] == {"k": 3}
    path.write_bytes("[search]\nk = 3\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"m3index\.toml is not UTF-8 text\."):
        settings.read(path, None, COMMANDS)
