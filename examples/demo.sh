# The model is multilingual: a German and a Japanese question find notes that are only there in English or Russian. Across
# languages the words of question and note differ, hence --mode dense.
show ingest examples/corpus.jsonl --encoder offline --field lang:str --field year:int
show search how do bees tell each other where the flowers are -k 2
show search "Warum ist der Baikalsee so tief?" -k 2 --mode dense
show search ペニシリンはどのように発見されたか -k 1 --mode dense
show search "活字印刷是谁发明的" -k 2 --filter 'lang == "zh" and year >= 2008'
show search Wie sprechen Honigbienen miteinander -k 1 --where lang=de --json
