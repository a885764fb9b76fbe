"""Features as data: the vectors of every image of a dataset in Parquet files, shard by shard."""

from headstart.workflows.embed.request import SHARD_SIZE, EmbedRequest
from headstart.workflows.embed.run import Embedded, run_embed

__all__ = ["SHARD_SIZE", "EmbedRequest", "Embedded", "run_embed"]
