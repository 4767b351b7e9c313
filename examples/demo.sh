#!/bin/sh
# The main job on a small corpus: no model hub, no server, no GPU. Called by `make demo`.
set -eu
export M3INDEX_URI="$DEMO/m3index.db" M3INDEX_COLLECTION=almanac COLUMNS="${COLUMNS:-80}"
m3index() { "$BIN/m3index" "$@"; }
say() { printf '\n$ m3index'; for word in "$@"; do case $word in *[\ \"]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; printf '\n'; }
show() { say "$@"; m3index "$@"; }

show ingest examples/corpus.jsonl --encoder offline --field lang:str --field year:int
show search "why does the sea rise and fall twice a day" -k 5
show search "bread" -k 3 --filter 'lang == "de"'
show search "蜜蜂" -k 2 --json
