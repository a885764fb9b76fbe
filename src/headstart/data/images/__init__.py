"""From pictures to the pixels that a network takes.

In: datasets, files, arrays. Out: uint8 batches. Imports data, records and errors. Called by
training, prediction, export and serving.
"""

from __future__ import annotations

from headstart.data.images.prepare import batches, decode, fit, prepare

__all__ = ["batches", "decode", "fit", "prepare"]
