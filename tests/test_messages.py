"""A message names only options and commands that exist, where the command that says it has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from messages import literals

import m3index.cli  # noqa: F401  (declares the commands)
from m3index.cli.apps import all_commands
from m3index.cli.options import CorpusOutput
from m3index.corpus.options import Input, Keys, Rejects
from m3index.encoder.options import Device, Loading, Model, RemoteCode
from m3index.index.options import Columns, DeleteGuard, IngestOptions, ReindexOptions, SyncOptions, Waiting
from m3index.options import Group
from m3index.scale.options import EncodeOptions, LoadOptions
from m3index.serve.options import Listening, ServeToken
from m3index.store.options import Address

PACKAGE = Path(__file__).resolve().parent.parent / "m3index"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
COMMANDS = all_commands()
GLOBAL = {"--config", "--profile", "--version", "--help"}

FLAGS = {name: {f for o in c.options.values() for f in o.flags} | GLOBAL for name, c in COMMANDS.items()}
EVERY = set().union(*FLAGS.values())

RAISED_BY: dict[str, type[Group] | str] = {
    "addresses.py": Address,
    "corpus/formats.py": Keys,
    "corpus/notes.py": CorpusOutput,
    "corpus/options.py": Rejects,
    "corpus/places.py": Input,
    "corpus/quarantine.py": Rejects,
    "corpus/selection.py": Input,
    "distill/": "models distill",
    "doctor.py": "doctor",
    "encoder/backbone.py": RemoteCode,
    "encoder/e5.py": Model,
    "encoder/engine.py": Device,
    "encoder/hardware.py": Device,
    "encoder/int8.py": Loading,
    "encoder/memory.py": Device,
    "encoder/prepared.py": Loading,
    "encoder/options.py": Model,
    "encoder/recall.py": Loading,
    "evaluate/runs.py": "search",
    "index/changes.py": "sync",
    "index/collection.py": Columns,
    "index/lock.py": Waiting,
    "index/options.py": DeleteGuard,
    "index/plan.py": IngestOptions,
    "index/prune.py": DeleteGuard,
    "index/reindex.py": ReindexOptions,
    "index/sync.py": SyncOptions,
    "index/tenant.py": IngestOptions,
    "process.py": Loading,
    "scale/bulk.py": LoadOptions,
    "scale/encode.py": EncodeOptions,
    "scale/on_ray.py": EncodeOptions,
    "schema.py": Columns,
    "serve/listen.py": Listening,
    "serve/options.py": ServeToken,
    "service.py": Model,
    "search/why.py": "why",
    "store/lite.py": Address,
    "store/milvus.py": Columns,
    "store/milvus_errors.py": Address,
    "store/options.py": Address,
}
"""Who says what a file below the command line says: a command, or every command with a group of options."""

DESCRIPTIONS = ("errors.py", "encoder/presets.py", "distill/card.py", "evaluate/options.py")
"""Files whose texts describe options, or are said by the one command whose options they check."""

HELP = {text for c in COMMANDS.values() for o in c.options.values() for text in (o.help, o.shown)}


def speakers(file: str) -> list[str]:
    who = next((who for prefix, who in RAISED_BY.items() if file.startswith(prefix)), None)
    assert who is not None, f"{file} names an option: say in RAISED_BY which commands raise its messages"
    if isinstance(who, str):
        return [who]
    return [name for name, c in COMMANDS.items() if any(issubclass(g, who) for g in c.groups)]


def command_in(text: str) -> str | None:
    """The command at the beginning of a text after `m3index `."""
    words = text.split()
    return next((name for n in (2, 1) if (name := " ".join(words[:n])) in COMMANDS), None)


def named(text: str) -> tuple[list[tuple[str, set[str]]], set[str]]:
    """The commands that a text names with the flags that it gives them, and all other flags."""
    commands, rest = [], text
    for match in re.finditer(r"(?:m3index |^)((?:[a-z]+ ?)+[^`;,()]*)", text):
        if command := command_in(match[1]):
            commands.append((command, set(FLAG.findall(match[1]))))
            rest = rest.replace(match[0], "")
    return commands, set(FLAG.findall(rest))


TEXTS = [
    pytest.param(path.relative_to(PACKAGE).as_posix(), text, id=f"{path.relative_to(PACKAGE)}:{line}")
    for path in sorted(PACKAGE.rglob("*.py"))
    for line, text in literals(path)
    if FLAG.search(text)
]


@pytest.mark.parametrize(("file", "text"), TEXTS)
def test_who_says_a_message_has_the_options_that_it_names(file: str, text: str) -> None:
    commands, others = named(text)
    for command, flags in commands:
        assert flags <= FLAGS[command], f"`m3index {command}` has no {flags - FLAGS[command]}"
    assert others <= EVERY
    if file.startswith("cli/") or file in DESCRIPTIONS or text in HELP:
        return
    given = FLAG.match(text)  # a text that begins with a flag is about its value, so it was given
    others -= {given[0]} if given else set()
    if others - GLOBAL:
        for command in speakers(file):
            assert others <= FLAGS[command], f"`m3index {command}` has no {others - FLAGS[command]}"


def test_there_are_messages_to_check() -> None:
    assert len(TEXTS) > 80


COMMAND = re.compile(r"`m3index ((?:[a-z]+ ?)+)")


def test_messages_name_commands_that_exist() -> None:
    texts = [(path, text) for path in PACKAGE.rglob("*.py") for _, text in literals(path)]
    named_commands = [(path, m[1]) for path, text in texts for m in COMMAND.finditer(text)]
    assert len(named_commands) > 10
    assert [(path.name, words) for path, words in named_commands if command_in(words) is None] == []
