"""Training a network from scratch, with checkpoints, logs and a report."""

from headstart.workflows.train.request import TrainingFiles, TrainingRequest, checkpoints_of
from headstart.workflows.train.run import Trained, run_training

__all__ = ["Trained", "TrainingFiles", "TrainingRequest", "checkpoints_of", "run_training"]
