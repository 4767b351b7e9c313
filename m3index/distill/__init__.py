"""Distils a teacher into a student with fewer layers or another model, with all heads and a certificate.

options.py      the options; the objective and its recipes
layers.py       which layers of the teacher a student keeps
data.py         documents -> token ids on disk, held-out texts, token-budget batches
network.py      a model with gradients over packed inputs
losses.py       the terms of the objective
teachers.py     sources of targets: a teacher, its cached outputs, BM25-like weights
cache.py        teacher outputs in Parquet, with a manifest
fit.py          initial heads and projections by least squares
loop.py         the training loop
checkpoint.py   the state that resumes a run exactly
curves.py       the loss as JSON lines and a plot
output.py       the student's directory
card.py         the model card
agreement.py    how well two encoders agree
retrieval.py    teacher and student on a test collection
certificate.py  all measurements, side by side
run.py          the whole distillation
drift.py        whether stored vectors still agree with the teacher
"""
