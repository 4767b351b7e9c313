#!/bin/sh
# The retrieval figures of docs/results.md, by the commands that users have.
#
#     sh benchmarks/results.sh [DATA] [OUT] [ENCODER]
#
# DATA: the folder with scifact/, xquad/, longdocs/ (default ../shared/data). OUT: where the database, the
# runs and the plots go (default results/). ENCODER: default offline.
# Encodes about 12 million tokens. hybrid: reciprocal rank fusion at equal weights (fusion by evidence is measured by
# benchmarks/fusion.py).
set -eu
DATA=${1:-../shared/data}
OUT=${2:-results}
ENCODER=${3:-offline}
mkdir -p "$OUT"
export M3INDEX_URI="$OUT/results.db" M3INDEX_ENCODER="$ENCODER" M3INDEX_QUIET=1 COLUMNS=100

say() { printf '\n## %s\n' "$*"; }

say SciFact
m3index ingest "$DATA"/scifact/corpus.jsonl.gz -c scifact
say "SciFact, tuned on the train queries"
m3index tune -c scifact --queries "$DATA/scifact/queries.jsonl" --qrels "$DATA/scifact/qrels/train.tsv" \
    --plot "$OUT/tune.png"
say "SciFact, test queries"
m3index eval --fusion rrf -c scifact --queries "$DATA/scifact/queries.jsonl" --qrels "$DATA/scifact/qrels/test.tsv" \
    --depth 1000 -m nDCG@10 -m Recall@100 --plot "$OUT/scifact.png"

for lang in ar de el en es hi ro ru th tr vi zh; do
    say "XQuAD $lang"
    m3index ingest "$DATA/xquad/$lang/corpus.jsonl" -c "xquad_$lang" --cache "$OUT/cache"
    m3index eval --fusion rrf -c "xquad_$lang" --queries "$DATA/xquad/$lang/queries.jsonl" \
        --qrels "$DATA/xquad/$lang/qrels/test.tsv" -m nDCG@10
done
say "XQuAD mixed"
m3index ingest "$DATA/xquad/mixed/corpus.jsonl.gz" -c xquad_mixed --cache "$OUT/cache"
m3index eval --fusion rrf -c xquad_mixed --queries "$DATA/xquad/mixed/queries.jsonl" \
    --qrels "$DATA/xquad/mixed/qrels/test.tsv" -m nDCG@10 -m Recall@100

say "Long documents"
m3index ingest "$DATA"/longdocs/corpus.jsonl* -c longdocs
m3index eval --fusion rrf -c longdocs --queries "$DATA/longdocs/queries.jsonl" --qrels "$DATA/longdocs/qrels/test.tsv" \
    -m nDCG@10 -m Recall@100
