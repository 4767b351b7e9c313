"""Large corpora: Parquet shards of encoded passages, Ray Data, loading and bulk import."""
