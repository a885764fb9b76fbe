"""Features as data: Parquet files of vectors, labels and digests, and datasets that are read from them."""
