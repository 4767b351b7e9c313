"""m3index models list, prepare, clean, bench, distill and drift."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from m3index.cli import apps
from m3index.cli.command import command
from m3index.cli.options import CorpusOutput, DryRun, Output
from m3index.cli.service import opened
from m3index.cli.session import Session
from m3index.corpus.options import Input, Passages
from m3index.distill.options import DistillOptions, DriftOptions
from m3index.encoder.options import Device, Model
from m3index.options import Group, Number, changed, group, option
from m3index.progress import Progress
from m3index.store.options import Connection
from m3index.wording import many


def _rows(name: str) -> list[dict[str, Any]]:
    from m3index.encoder import presets

    if not name:
        return presets.describe()
    if named := [row for row in presets.describe() if row["name"] == name]:
        return named
    from m3index.encoder.load import describe

    return [describe(name)]


@command(apps.models, "list")
def list_models(
    session: Session,
    output: Output,  # noqa: ARG001  (the session has it)
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Show only this preset, hub id or directory.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """List the preset models and their capabilities."""
    rows = _rows(name)
    if session.as_json:
        for row in rows:
            session.reporter.result({"type": "model", **row})
        return
    from m3index.cli import show

    for row in rows:
        default = " (default)" if row["default"] else ""
        outputs = ", ".join(row["outputs"]).replace("_", "-")
        sparse = "lexical head" if row["sparse"] == "lexical" else "BM25 of the store"
        matryoshka = ", Matryoshka" if row["matryoshka"] else ""
        lines = [
            (Path(row["name"]).name + default, row["summary"]),
            ("  model", row["model"]),
            ("  outputs", f"{outputs}; sparse: {sparse}"),
            ("  dense", f"{row['dim']}-d{matryoshka}, {row['pooling']} pooling"),
            ("  limit", f"{row['limit']:,} tokens"),
        ]
        if row["query_prompt"] or row["document_prompt"]:
            prompts = f"query {row['query_prompt']!r}, document {row['document_prompt']!r}"
            lines.append(("  prompts", prompts))
        show.pairs(lines)


@command(apps.models, "prepare")
def prepare(
    session: Session,
    device: Device,
    output: Output,  # noqa: ARG001
    names: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Presets, hub ids or directories.", show_default=False),
    ],
) -> None:
    """Download, convert or prepare models now instead of at their first use."""
    from m3index.encoder.load import prepare_model
    from m3index.encoder.prepared import size

    for name in names:
        directory = prepare_model(name, device)
        total = size(directory)
        session.reporter.result(
            {"type": "prepared", "name": name, "directory": str(directory), "bytes": total}
        )
        if not session.as_json:
            session.reporter.note(f"{name}: ready in {directory} ({total / 1e6:,.0f} MB).")
    session.summary |= {"models": len(names)}


@command(apps.models, "clean")
def clean(session: Session, dry_run: DryRun, output: Output) -> None:  # noqa: ARG001
    """Remove what was converted or prepared on this machine; the next use of a model makes it again."""
    from m3index.encoder import prepared

    forms = prepared.prepared()
    sizes = [form.size for form in forms]
    for form, total in zip(forms, sizes, strict=True):
        if not dry_run.dry_run:
            prepared.remove(form)
        done = "would be removed" if dry_run.dry_run else "removed"
        session.reporter.note(f"{form.name}: {done} from {prepared.cache_folder()} ({total / 1e6:,.0f} MB).")
    if not dry_run.dry_run:
        prepared.clear()
    if not forms:
        session.reporter.note(f"There are no prepared models in {prepared.cache_folder()}.")
    session.summary |= {"models": len(forms), "bytes": sum(sizes), "dry_run": dry_run.dry_run}


@group
class Bench(Group):
    """The duration of the measurement."""

    panel = "Run"

    seconds: float = option(
        Number(0.1, metavar="N"),
        "Duration of the encoding in seconds, without warm-up.",
        default=20.0,
        file=False,
    )


@command(apps.models, "bench")
def bench(
    session: Session,
    options: Bench,
    passages: Passages,
    corpus: Input,
    model: Model,
    output: Output,  # noqa: ARG001
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            show_default="synthetic texts of various lengths",
            help="Corpus; its first documents are encoded.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
) -> None:
    """Measure a model on this machine with your texts: texts/s, tokens/s and memory."""
    from m3index.corpus.readers import open_corpus
    from m3index.corpus.windows import PassageSettings
    from m3index.scale.measure import measure, synthetic

    encoder = model.load()
    try:
        size = (passages.splitting or PassageSettings()).resolve(encoder.tokenizer)
        documents = open_corpus(paths, corpus) if paths else synthetic()
        measurement = measure(
            encoder, documents, size, seconds=options.seconds,
            device=model.device, precision=model.precision, reporter=session.reporter,
        )  # fmt: skip
    finally:
        encoder.close()
    recall = getattr(encoder, "recall", None)
    record = measurement.to_json() | ({"recall": asdict(recall)} if recall else {})
    session.summary = {name: value for name, value in record.items() if name != "type"}
    if session.as_json:
        session.reporter.result(record)
        return
    from m3index.cli import show

    show.pairs(
        [
            ("encoder", f"{measurement.encoder} ({model.device}, {model.precision})"),
            ("texts", f"{measurement.texts_s:,.1f}/s"),
            ("tokens", f"{measurement.tokens_s:,.0f}/s"),
            (
                "sample",
                f"{measurement.tokens_p50:,} tokens per text (median), {measurement.tokens_p95:,} (95 %), "
                f"{measurement.tokens_max:,} (longest)",
            ),
            ("tokenizer", f"{measurement.tokenise_tokens_s:,.0f} tokens/s alone"),
            (
                "packing",
                f"no padding; batches of 32 would compute {measurement.padded_tokens:.2f} x the tokens",
            ),
            ("memory", f"{measurement.peak_gib:.2f} GiB peak (host)"),
            ("loading", f"{measurement.load_s:.1f} s"),
            *([("against fp32", str(recall))] if recall else []),
        ]
    )


@command(apps.models, "drift")
def drift(
    session: Session,
    options: DriftOptions,
    connection: Connection,
    device: Device,
    output: Output,  # noqa: ARG001
) -> None:
    """Encode a sample of the stored passages with the teacher; exit with 16 if they no longer agree."""
    from m3index.distill import drift as drifting
    from m3index.encoder.load import load
    from m3index.encoder.presets import DEFAULT
    from m3index.encoder.source import locate

    with opened(session, connection) as index:
        current = index.current()
        expected = drifting.expected(locate(current.properties["encoder"]).directory)
        name = options.teacher or expected.teacher or DEFAULT
        teacher = load(
            name,
            device=device.device,
            precision=device.precision,
            trust_remote_code=options.trust_remote_code,
        )
        session.reporter.stage(f"encoding {many(options.sample, 'passage')} with {teacher.info.name}")
        agreement = drifting.measure(
            index.store, current.name, teacher, sample=options.sample, seed=options.seed
        )
    session.reporter.result({"type": "agreement", "teacher": teacher.info.name, **asdict(agreement)})
    if not session.as_json:
        overlap = "" if agreement.token_overlap is None else f", token overlap {agreement.token_overlap:.4f}"
        session.reporter.note(
            f"{many(agreement.passages, 'passage')}: mean cosine {agreement.mean_cosine:.4f}, lowest "
            f"{agreement.lowest_cosine:.4f}{overlap}"
        )
    least = expected.cosine if options.min_cosine is None else options.min_cosine
    drifting.check(agreement, cosine=least, overlap=expected.overlap)


@command(apps.models, "distill")
def distill(
    session: Session,
    options: DistillOptions,
    device: Device,
    output: CorpusOutput,  # noqa: ARG001
    more: Annotated[
        list[str], typer.Argument(metavar="FILE", help="More of the corpus.", show_default=False)
    ] = [],  # noqa: B006
) -> None:
    """Distil a student that keeps dense, lexical and multi-vector heads; certify what it is worth."""
    from m3index.distill.loop import Stopped
    from m3index.distill.run import distill as distil

    options = changed(options, {"corpus": (*options.corpus, *more)})
    curve = _Curve(session)
    try:
        with session.stop.listening(session.reporter):
            done = distil(options, device, reporter=session.reporter, on_step=curve, stop=session.stop)
    except Stopped as stopped:
        session.exit = session.stop.exit
        session.reporter.error(str(stopped), int(session.exit))
        return
    finally:
        curve.close()
    session.summary |= {"steps": done.cursor.step, "tokens": done.cursor.tokens, "out": str(done.out)}
    if done.certificate is not None:
        session.reporter.result({"type": "certificate", **done.certificate})
    _tell(session, done.certificate, done.out)


class _Curve:
    """The training as it goes: the loss as a line of bars for people, counts for programs."""

    _bars = "▁▂▃▄▅▆▇█"
    _width = 40

    def __init__(self, run: Session) -> None:
        self._run = run
        self._losses: list[float] = []
        self._live: Any = None
        self._shown = 0

    def __call__(self, step: dict[str, float]) -> None:
        number, total = int(step["step"]), int(step["total_steps"])
        if self._run.as_json:
            self._run.reporter.progress(
                Progress(documents=number, tokens=int(step["tokens"]), total=total, unit="steps")
            )
            return
        self._losses.append(step["loss"])
        line = (
            f"step {number:,} of {total:,}  loss {step['loss']:.4f}  {self._curve()}  "
            f"{step['tokens_per_second']:,.0f} tokens/s"
        )
        if not self._update(line) and number * 20 // total > self._shown:
            self._shown = number * 20 // total
            self._run.reporter.note(line)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()

    def _curve(self) -> str:
        """The mean loss of equal stretches of the run so far, from its least to its greatest."""
        n = min(self._width, len(self._losses))
        parts = [
            self._losses[i * len(self._losses) // n : (i + 1) * len(self._losses) // n] for i in range(n)
        ]
        means = [sum(part) / len(part) for part in parts]
        low, high = min(means), max(means)
        return "".join(self._bars[round((m - low) / ((high - low) or 1) * 7)] for m in means)

    def _update(self, line: str) -> bool:
        """False where there is no terminal to draw on."""
        console = getattr(self._run.reporter, "console", None)
        if console is None or not console.is_terminal or getattr(self._run.reporter, "quiet", False):
            return False
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=console, transient=True)
            self._live.start()
        self._live.update(line)
        return True


def _tell(run: Session, certificate: dict[str, Any] | None, out: Path) -> None:
    if certificate is not None:
        before, after = (certificate["agreement"][name] for name in ("untrained", "student"))
        for label, key in (
            ("mean cosine", "mean_cosine"),
            ("token overlap", "token_overlap"),
            ("token cosine", "token_cosine"),
        ):
            if after[key] is not None:
                run.reporter.note(f"{label} with the teacher: {after[key]:.4f} (untrained {before[key]:.4f})")
        run.reporter.note(f"{certificate['speed']['ratio']:.2f} times as fast as the teacher")
        for reason in certificate["shortfalls"]:
            run.reporter.warning(f"It may not share its teacher's collections: {reason}.")
    if not run.as_json:
        run.reporter.note(f"The student is in {out}; its README.md and certificate.json have all figures.")
