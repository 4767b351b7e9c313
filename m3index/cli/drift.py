"""m3index drift: whether what is stored still agrees with the teacher."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Optional

import typer

from m3index.cli import options
from m3index.cli.session import session
from m3index.types import DEFAULT_COLLECTION


def drift(
    teacher: Annotated[
        str,
        typer.Option(
            envvar="M3INDEX_TEACHER",
            metavar="MODEL",
            show_default="the one that the student's certificate names, else teacher",
            help="Preset, hub id or directory of the model to compare with.",
        ),
    ] = "",
    sample: Annotated[
        int, typer.Option(envvar="M3INDEX_SAMPLE", metavar="N", min=1, help="Passages to encode again.")
    ] = 200,
    min_cosine: Annotated[
        Optional[float],  # noqa: UP045  (typer evaluates it)
        typer.Option(
            envvar="M3INDEX_MIN_COSINE",
            min=-1.0,
            max=1.0,
            show_default="0.02 below the certificate's, else 0.9",
            help="Least mean cosine of the dense vectors.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(envvar="M3INDEX_SEED", help="Of the sample.")] = 0,
    uri: options.Uri = options.DEFAULT_URI,
    token: options.Token = "",
    db: options.Db = "",
    timeout: options.Timeout = 60.0,
    collection: options.Collection = DEFAULT_COLLECTION,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Encode a sample of the stored passages with the teacher; exit 16 when they no longer agree."""
    given = dict(locals())
    with session("drift", as_json=as_json, quiet=quiet) as run:
        from m3index.distill import drift as drifting
        from m3index.encoder.load import load
        from m3index.encoder.presets import DEFAULT
        from m3index.encoder.source import locate

        with options.opened(run, given) as index:
            target = index.target()
            expected = drifting.expected(locate(target.properties["encoder"]).directory)
            with_ = load(teacher or expected.teacher or DEFAULT, device=device, precision=precision)
            run.reporter.stage(f"encoding {sample:,} passages with {with_.info.name}")
            found = drifting.measure(index.store, target.name, with_, sample=sample, seed=seed)
        run.reporter.result({"type": "agreement", "teacher": with_.info.name, **asdict(found)})
        if not as_json:
            overlap = "" if found.token_overlap is None else f", token overlap {found.token_overlap:.4f}"
            run.reporter.note(
                f"{found.passages:,} passages: mean cosine {found.mean_cosine:.4f}, lowest "
                f"{found.lowest_cosine:.4f}{overlap}"
            )
        least = expected.cosine if min_cosine is None else min_cosine
        drifting.check(found, cosine=least, overlap=expected.overlap)
