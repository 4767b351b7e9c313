"""m3index distill: a student of a teacher, with all of its heads and a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from m3index.cli import options
from m3index.cli.session import Session, session
from m3index.progress import Progress

if TYPE_CHECKING:
    from m3index.distill.request import Request

_STUDENT = "Student"
_LOSS = "Loss"
_TRAINING = "Training"
_DATA = "Data"
_EVALUATION = "Certificate"

Weight = Optional[float]  # noqa: UP045  (typer evaluates it)
Steps = Optional[int]  # noqa: UP045
SomePath = Optional[Path]  # noqa: UP045


def _option(name: str, panel: str, help: str, **more: Any) -> Any:  # noqa: A002
    variable = "M3INDEX_DISTILL_" + name.removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, envvar=variable, rich_help_panel=panel, help=help, **more)


def distill(
    out: Annotated[Path, _option("--out", _STUDENT, "Directory of the student.", metavar="DIR")],
    corpus: Annotated[
        list[str],
        _option(
            "--corpus", _DATA, "Texts to train on: as for ingest. Several may follow.", metavar="FILE..."
        ),
    ],
    more: Annotated[list[str], typer.Argument(metavar="FILE", help="More of the corpus.")] = [],  # noqa: B006
    teacher: Annotated[
        str,
        _option(
            "--teacher",
            _STUDENT,
            "Preset, hub id or directory of the teacher.",
            metavar="MODEL",
            show_default="teacher; with --heads-only none: the lexical head learns BM25-like weights",
        ),
    ] = "",
    student: Annotated[
        str,
        _option(
            "--student",
            _STUDENT,
            "Train this model instead of the teacher's own layers.",
            metavar="MODEL",
            show_default="none",
        ),
    ] = "",
    layers: Annotated[
        str,
        _option(
            "--layers",
            _STUDENT,
            "How many of the teacher's layers; or which (0,3,7); or auto, auto:8: the set that agrees best.",
            metavar="N|LIST|auto",
            show_default="a third",
        ),
    ] = "",
    heads: Annotated[
        str,
        _option(
            "--heads",
            _STUDENT,
            "Of dense,lexical,colbert.",
            metavar="LIST",
            show_default="all that the teacher has",
        ),
    ] = "",
    heads_only: Annotated[
        bool, _option("--heads-only", _STUDENT, "Freeze the --student and train heads beside it.")
    ] = False,
    embeddings: Annotated[
        bool, _option("--train-embeddings", _STUDENT, "Train the token embeddings too.")
    ] = False,
    recipe: Annotated[
        str, _option("--recipe", _LOSS, "Weights of the losses: m3, mse or pair-cosine.", metavar="NAME")
    ] = "m3",
    w_cosine: Annotated[
        Weight, _option("--w-cosine", _LOSS, "1 - cosine of dense vectors.", show_default="the recipe's")
    ] = None,
    w_mse: Annotated[
        Weight,
        _option("--w-mse", _LOSS, "Squared differences of dense vectors.", show_default="the recipe's"),
    ] = None,
    w_similarity: Annotated[
        Weight,
        _option(
            "--w-similarity", _LOSS, "Squared differences of pairwise cosines.", show_default="the recipe's"
        ),
    ] = None,
    w_lexical: Annotated[
        Weight,
        _option("--w-lexical", _LOSS, "Squared differences of token weights.", show_default="the recipe's"),
    ] = None,
    w_colbert: Annotated[
        Weight, _option("--w-colbert", _LOSS, "1 - cosine of multi-vectors.", show_default="the recipe's")
    ] = None,
    w_hidden: Annotated[
        Weight,
        _option("--w-hidden", _LOSS, "1 - cosine of the last hidden states.", show_default="the recipe's"),
    ] = None,
    w_layers: Annotated[
        Weight,
        _option(
            "--w-layers",
            _LOSS,
            "1 - cosine of the states after each of its layers and before the teacher's next.",
            show_default="the recipe's",
        ),
    ] = None,
    matryoshka: Annotated[
        str,
        _option(
            "--matryoshka",
            _LOSS,
            "Widths at which the dense losses count as well: 64,128,256.",
            metavar="LIST",
            show_default="the recipe's",
        ),
    ] = "",
    steps: Annotated[
        Steps,
        _option("--steps", _TRAINING, "Steps of the optimiser.", min=1, show_default="by --epochs"),
    ] = None,
    epochs: Annotated[float, _option("--epochs", _TRAINING, "Passes over the corpus.", min=0.0)] = 1.0,
    learning_rate: Annotated[float, _option("--learning-rate", _TRAINING, "At its peak.")] = 2e-4,
    warmup: Annotated[float, _option("--warmup", _TRAINING, "Share of the steps.", min=0.0, max=1.0)] = 0.06,
    batch_tokens: Annotated[
        int, _option("--batch-tokens", _TRAINING, "Tokens of one forward pass.", min=1)
    ] = 8192,
    accumulate: Annotated[int, _option("--accumulate", _TRAINING, "Forward passes of a step.", min=1)] = 1,
    optimizer: Annotated[
        str, _option("--optimizer", _TRAINING, "adamw, or muon for the matrices of the layers.")
    ] = "adamw",
    train_precision: Annotated[str, _option("--train-precision", _TRAINING, "auto, fp32 or bf16.")] = "auto",
    seed: Annotated[int, _option("--seed", _TRAINING, "Of the order of the batches.")] = 0,
    save_every: Annotated[int, _option("--save-every", _TRAINING, "Steps between checkpoints.", min=1)] = 500,
    resume: Annotated[
        bool, _option("--resume", _TRAINING, "Go on from the checkpoint, as if nothing had happened.")
    ] = False,
    work: Annotated[
        SomePath,
        _option(
            "--work",
            _TRAINING,
            "Prepared data and checkpoint.",
            metavar="DIR",
            show_default="OUT.work, removed at the end",
        ),
    ] = None,
    log_dir: Annotated[
        SomePath,
        _option(
            "--log-dir",
            _TRAINING,
            "Write training.jsonl and training.png here.",
            metavar="DIR",
            show_default="none",
        ),
    ] = None,
    tokens: Annotated[
        int, _option("--tokens", _DATA, "Longest input; longer texts are cut into windows.", min=8)
    ] = 512,
    long_share: Annotated[
        float,
        _option(
            "--long-share", _DATA, "Share of the texts that are joined to long inputs.", min=0.0, max=1.0
        ),
    ] = 0.1,
    replace_words: Annotated[
        float,
        _option(
            "--replace-words",
            _DATA,
            "Share of words, on average, that make way for others of the vocabulary.",
            min=0.0,
            max=1.0,
        ),
    ] = 0.0,
    plain_share: Annotated[
        float,
        _option(
            "--plain-share",
            _DATA,
            "Share of the texts that keep their words with --replace-words, and come last.",
            min=0.0,
            max=1.0,
        ),
    ] = 0.2,
    held_out: Annotated[
        float, _option("--held-out", _DATA, "Share kept from training, at most 1,000 texts.")
    ] = 0.02,
    exclude: Annotated[
        list[str],
        _option(
            "--exclude",
            _DATA,
            "Corpus none of whose texts may be trained on. Repeatable.",
            metavar="FILE",
            show_default="none",
        ),
    ] = [],  # noqa: B006
    cache: Annotated[
        SomePath,
        _option(
            "--cache",
            _DATA,
            "Keep the teacher's outputs here, for several runs.",
            metavar="DIR",
            show_default="none",
        ),
    ] = None,
    id_field: options.IdField = "",
    text_field: options.TextField = "",
    title_field: options.TitleField = "",
    metadata_field: options.MetadataField = "",
    eval_pairs: Annotated[
        SomePath,
        _option(
            "--eval-pairs", _EVALUATION, "TSV of [score], text, text.", metavar="TSV", show_default="none"
        ),
    ] = None,
    eval_retrieval: Annotated[
        SomePath,
        _option(
            "--eval-retrieval",
            _EVALUATION,
            "Test collection in BEIR's layout.",
            metavar="DIR",
            show_default="none",
        ),
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Distil a student that keeps dense, lexical and multi-vector heads; certify what it is worth."""
    given = dict(locals())
    with session("distill", as_json=as_json, quiet=quiet) as run:
        from m3index.distill.loop import Stopped
        from m3index.distill.run import distill as distil

        request, show = _request(given), _Curve(run)
        try:
            with run.stop.listening(run.reporter):
                done = distil(request, reporter=run.reporter, on_step=show, stop=run.stop)
        except Stopped as stopped:
            run.exit = run.stop.exit
            run.reporter.error(str(stopped), int(run.exit))
            return
        finally:
            show.close()
        run.summary |= {"steps": done.cursor.step, "tokens": done.cursor.tokens, "out": str(done.out)}
        if done.certificate is not None:
            run.reporter.result({"type": "certificate", **done.certificate})
        _tell(run, done.certificate, out)


def _request(given: dict[str, Any]) -> Request:
    from m3index.corpus.mapping import FieldMapping
    from m3index.distill.data import DataSettings
    from m3index.distill.layers import LayerChoice
    from m3index.distill.loop import Training
    from m3index.distill.request import Request, parse_heads, parse_objective

    weights = {
        "cosine": given["w_cosine"],
        "mse": given["w_mse"],
        "similarity": given["w_similarity"],
        "lexical": given["w_lexical"],
        "multi_vector": given["w_colbert"],
        "hidden": given["w_hidden"],
        "layers": given["w_layers"],
    }
    return Request(
        out=given["out"],
        corpus=[*given["corpus"], *given["more"]],
        teacher=given["teacher"] or (None if given["heads_only"] else "teacher"),
        student=given["student"] or None,
        layers=LayerChoice.parse(given["layers"]) if given["layers"] else LayerChoice(),
        heads=parse_heads(given["heads"]),
        objective=parse_objective(given["recipe"], weights, given["matryoshka"]),
        heads_only=given["heads_only"],
        embeddings=given["embeddings"],
        data=DataSettings(
            tokens=given["tokens"],
            long_share=given["long_share"],
            replace_words=given["replace_words"],
            plain_share=given["plain_share"],
            held_out=given["held_out"],
        ),
        training=Training(
            steps=given["steps"],
            epochs=given["epochs"],
            rate=given["learning_rate"],
            warmup=given["warmup"],
            batch_tokens=given["batch_tokens"],
            accumulate=given["accumulate"],
            optimizer=given["optimizer"],
            precision=given["train_precision"],
            seed=given["seed"],
            save_every=given["save_every"],
        ),
        mapping=FieldMapping.named(
            id=given["id_field"] or None,
            text=given["text_field"] or None,
            title=given["title_field"] or None,
            metadata=given["metadata_field"] or None,
        ),
        exclude=given["exclude"],
        eval_pairs=given["eval_pairs"],
        eval_retrieval=given["eval_retrieval"],
        cache=given["cache"],
        work=given["work"],
        log_dir=given["log_dir"],
        device=given["device"],
        precision=given["precision"],
        resume=given["resume"],
    )


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
