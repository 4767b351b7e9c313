#!/bin/sh
# The main job on a small corpus: no model hub, no server, no GPU. Called by `make demo`.
set -eu
export M3INDEX_URI="$DEMO/m3index.db" M3INDEX_COLLECTION=almanac COLUMNS="${COLUMNS:-80}"
m3index() { "$BIN/m3index" "$@"; }
say() { printf '\n$ m3index'; for word in "$@"; do case $word in *[\ \"]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; printf '\n'; }
show() { say "$@"; m3index "$@"; }

# The model is multilingual: a German and a Japanese question find notes that are only there in English or Russian. Across
# languages the words of question and note differ, hence --mode dense.
show ingest examples/corpus.jsonl examples/notes --encoder offline --field lang:str --field year:int
show search how do bees tell each other where the flowers are -k 2
show search "Warum ist der Baikalsee so tief?" -k 2 --mode dense
show search "Warum ist der Baikalsee so tief?" -k 2 --rerank colbert
show search ペニシリンはどのように発見されたか -k 1 --mode dense
show search "活字印刷是谁发明的" -k 2 --filter 'lang == "zh" and year >= 2008'
show search why is a window pane flat -k 1
show search Wie sprechen Honigbienen miteinander -k 1 --where lang=de --json
