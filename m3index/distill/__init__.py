"""Students of a teacher: fewer layers or another model, all of its heads kept, with a certificate.

layers.py       which layers of the teacher a student keeps
data.py         documents -> token ids on disk, held-out texts, token-budget batches
network.py      a model with gradients over packed inputs
losses.py       the objective, term by term; recipes
teachers.py     what a student learns from: a teacher, its cached outputs, BM25-like weights
cache.py        teacher outputs in Parquet, with a manifest
fit.py          heads and projections by least squares, to begin from
loop.py         the training loop
checkpoint.py   what a run needs to go on as if it had not stopped
curves.py       the loss as JSON lines and a picture
output.py       the student's directory
card.py         its model card
agreement.py    how far two encoders agree
retrieval.py    both on a test collection
certificate.py  all of that, side by side
run.py          the whole
drift.py        whether stored vectors still agree with the teacher
"""
