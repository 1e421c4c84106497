"""Tags of whole archives: shards of clips to parquet tables, on many processes."""
