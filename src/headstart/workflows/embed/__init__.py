"""Features as data: the vectors of every image of a dataset in Parquet files, shard by shard."""

from headstart.workflows.embed.request import EmbedRequest
from headstart.workflows.embed.run import Embedded, run_embed

__all__ = ["EmbedRequest", "Embedded", "run_embed"]
