"""m3index bench: this model, on this machine, with this corpus, in a minute."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from m3index.cli import options, parse
from m3index.cli.session import session


def bench(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            show_default="synthetic texts of many lengths",
            help="The corpus; its first documents are encoded.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
    seconds: Annotated[
        float,
        typer.Option(
            envvar="M3INDEX_BENCH_SECONDS", metavar="N", min=0.1, help="How long to encode, warm-up aside."
        ),
    ] = 20.0,
    passage_tokens: options.PassageTokens = "",
    overlap: options.Overlap = None,
    input_format: options.InputFormat = "",
    encoder: options.Encoder = "",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    dim: options.Dim = None,
    batch_tokens: options.BatchTokens = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a model on this machine with your texts: texts/s, tokens/s, memory."""
    with session("bench", as_json=as_json, quiet=quiet) as run:
        from m3index.api import EncoderChoice
        from m3index.corpus.readers import read
        from m3index.corpus.windows import PassageSettings
        from m3index.scale.measure import measure, synthetic

        model = EncoderChoice(encoder or None, device, precision, dim, batch_tokens).load()
        try:
            size = (parse.passages(passage_tokens, overlap) or PassageSettings()).resolve(model.tokenizer)
            documents = read(paths, format=input_format or None) if paths else synthetic()
            measured = measure(
                model, documents, size,
                seconds=seconds, device=device, precision=precision, reporter=run.reporter,
            )  # fmt: skip
        finally:
            model.close()
        recall = getattr(model, "recall", None)
        found = measured.to_json() | ({"recall": asdict(recall)} if recall else {})
        run.summary = {k: v for k, v in found.items() if k != "type"}
        if as_json:
            run.reporter.result(found)
            return
        from m3index.cli import show

        show.pairs(
            [
                ("encoder", f"{measured.encoder} ({device}, {precision})"),
                ("texts", f"{measured.texts_s:,.1f}/s"),
                ("tokens", f"{measured.tokens_s:,.0f}/s"),
                (
                    "sample",
                    f"{measured.tokens_p50:,} tokens a text (median), {measured.tokens_p95:,} (95 %), "
                    f"{measured.tokens_max:,} (longest)",
                ),
                ("tokenizer", f"{measured.tokenise_tokens_s:,.0f} tokens/s alone"),
                ("packing", f"no padding; batches of 32 would compute {measured.padded_tokens:.2f} x"),
                ("memory", f"{measured.peak_gib:.2f} GiB at the peak (the host's)"),
                ("loading", f"{measured.load_s:.1f} s"),
                *([("against fp32", str(recall))] if recall else []),
            ]
        )
