"""The configuration file. A value comes from the first source that sets it: flag, M3INDEX_* variable, profile
in m3index.toml, the rest of m3index.toml, default.

The file uses the option names of the command line, with `_` or `-`:

    uri = "http://milvus:19530"
    collection = "docs"
    encoder = "teacher"

    [fields]
    lang = "str"

    [search]
    weights = "dense=0.7,sparse=0.3"

    [profile.laptop]
    uri = "m3index.db"

Top-level names apply to every command, and a table named after a command (`[search]`, `[shards.encode]`) to
that command (`[search]` to `why` too). `[profile.NAME]` has the same structure and overrides both with
`--profile NAME`. A file cannot set secrets or options for a single run (`where`, `force`, `dry_run` ...).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m3index import folders
from m3index.errors import M3IndexError, UsageError
from m3index.output import write_output
from m3index.schema import check_field
from m3index.trust import is_trusted, remember

FILE_NAME = "m3index.toml"
LIKE = {"why": "search"}
"""Commands that also take the table of another one, since they are about the same: why a search misses a
document depends on the options that it has."""

SECRETS = frozenset({"token", "password", "serve_token"})


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A parsed m3index.toml. common, commands: values by option name, with `_`. fields: from `[fields]`.
    content: the bytes that were read."""

    path: Path | None = None
    content: bytes = b""
    common: Mapping[str, Any] = field(default_factory=dict)
    commands: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)

    def defaults(self, options: Mapping[str, Collection[str]]) -> dict[str, dict[str, Any]]:
        """The default values of each command.

        options: for each command, the names of the options that a file can set. Raises UsageError for an
        unknown name, so that a misspelt name is not ignored silently.
        """
        everywhere = {name for names in options.values() for name in names}
        for name in self.common:
            if name not in everywhere:
                raise UsageError(f"{self.path}: no command has an option {name!r} that a file can set.")
        declared = [f"{name}:{kind}" for name, kind in self.fields.items()]
        defaults: dict[str, dict[str, Any]] = {}
        for command, names in options.items():
            own = self.commands.get(command, {})
            for name in own:
                if name not in names:
                    raise UsageError(f"{self.path}: [{command}] has no option {name!r} that a file can set.")
            shared = {**self.common, **self.commands.get(LIKE.get(command, ""), {})}
            values = {name: value for name, value in shared.items() if name in names} | dict(own)
            if declared and "fields" in names:
                values.setdefault("fields", declared)
            defaults[command] = values
        return defaults


@dataclass(frozen=True, slots=True)
class Located:
    """Where the configuration file is. is_found: it lies in the working directory and nobody has named it, so
    that it needs the trust of the user (trust.py)."""

    path: Path
    is_found: bool = False


def find() -> Located | None:
    """The configuration file: M3INDEX_CONFIG, ./m3index.toml, or in the user's configuration directory."""
    if named := os.environ.get("M3INDEX_CONFIG"):
        return Located(Path(named))
    if Path(FILE_NAME).is_file():
        return Located(Path(FILE_NAME), is_found=True)
    own = folders.configuration() / FILE_NAME
    return Located(own) if own.is_file() else None


def read(path: Path | None, profile: str | None, commands: Collection[str]) -> ConfigFile:
    """Reads the file. Raises UsageError if it is missing, is not valid TOML or contains a wrong name."""
    if path is None:
        if profile:
            raise UsageError(f"--profile {profile} needs a {FILE_NAME}. Name the file with --config.")
        return ConfigFile()
    try:
        content = path.read_bytes()
        document = tomllib.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"There is no configuration file {path}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text.") from None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    profiles = document.pop("profile", {})
    if not isinstance(profiles, dict) or not all(isinstance(p, dict) for p in profiles.values()):
        raise UsageError(f"{path}: a profile must be a table, [profile.NAME].")
    for layer in profiles.values():
        _merge(path, content, [layer], commands)  # reports errors in profiles that are not in use
    layers = [document]
    if profile is not None:
        if profile not in profiles:
            known = ", ".join(sorted(profiles)) or "none"
            raise UsageError(f"{path} has no [profile.{profile}]. Its profiles are: {known}.")
        layers.append(profiles[profile])
    return _merge(path, content, layers, commands)


def _merge(path: Path, content: bytes, layers: list[dict[str, Any]], commands: Collection[str]) -> ConfigFile:
    """Merges the layers. A later layer wins, even at the top level over a command in an earlier one."""
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    fields: dict[str, str] = {}
    for layer in layers:
        for key, value in sorted(layer.items(), key=lambda item: isinstance(item[1], dict)):
            name = key.replace("-", "_")
            if name == "fields":
                if not isinstance(value, dict):
                    raise UsageError(f'{path}: fields must be a table, such as lang = "str" in [fields].')
                for column, kind in value.items():
                    check_field(column, str(kind))
                    fields[column] = kind
            elif isinstance(value, dict):
                for command, table in _tables(path, key, value, commands):
                    own.setdefault(command, {}).update(table)
            else:
                _refuse_secrets(path, {name: value})
                common[name] = value
                for table in own.values():
                    table.pop(name, None)
    return ConfigFile(path, content, common, own, fields)


def _tables(
    path: Path, key: str, table: dict[str, Any], commands: Collection[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields commands with their values. `[search]` is a command, `[shards]` contains several."""
    if key in commands:
        values = {name.replace("-", "_"): value for name, value in table.items()}
        _refuse_secrets(path, values)
        if isinstance(fields := values.get("fields"), dict):
            values["fields"] = [
                f"{column}:{check_field(column, str(kind))[1]}" for column, kind in fields.items()
            ]
        yield key, values
        return
    if not any(command.startswith(f"{key} ") for command in commands):
        raise UsageError(
            f"{path}: [{key}] is not the name of a command. Other tables are [fields] and [profile.NAME]."
        )
    for name, inner in table.items():
        if not isinstance(inner, dict) or f"{key} {name}" not in commands:
            known = ", ".join(command for command in commands if command.startswith(f"{key} "))
            raise UsageError(f"{path}: [{key}.{name}] is not the name of a command. Use {known}.")
        yield from _tables(path, f"{key} {name}", inner, commands)


def _refuse_secrets(path: Path, values: Mapping[str, Any]) -> None:
    for name in values:
        if name in SECRETS:
            raise UsageError(
                f"{path}: {name!r} must not be stored in a file. Set M3INDEX_{name.upper()} instead."
            )


def write_table(path: Path, table: str, values: Mapping[str, Any]) -> None:
    """Sets values in a table of the file and keeps its other lines and comments. A trusted file stays
    trusted, and a new one is.

    Raises UsageError if the file is not valid TOML or cannot be written, or if tomlkit is missing.
    """
    try:
        import tomlkit
        import tomlkit.exceptions
    except ImportError:
        raise UsageError(
            "Writing the configuration file needs tomlkit. Install it with: pip install 'm3index[eval]'"
        ) from None
    try:
        before = path.read_bytes() if path.exists() else None
        document = tomlkit.document() if before is None else tomlkit.parse(before.decode("utf-8-sig"))
        section = document.setdefault(table, tomlkit.table())
        for name, value in values.items():
            section[name] = value
    except (OSError, UnicodeDecodeError, tomlkit.exceptions.TOMLKitError) as error:
        raise UsageError(f"Cannot change {path}: {error}") from None
    write_trusted(path, tomlkit.dumps(document), is_trusted=before is None or is_trusted(path, before))


def write_trusted(path: Path, text: str, *, is_trusted: bool = True) -> None:
    """Writes the file. What the user has m3index write is trusted, unless `is_trusted` says otherwise."""
    write_output(path, text)
    if is_trusted:
        with suppress(M3IndexError):  # without a state directory, the user is asked
            remember(path, text.encode())
