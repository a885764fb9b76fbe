"""A study: strategies and controls on the same splits, with intervals, paired tests and a verdict."""

from headstart.workflows.study.contestants import CONTROLS
from headstart.workflows.study.request import StudyRequest, parse_controls, parse_labels
from headstart.workflows.study.run import run_study

__all__ = ["CONTROLS", "StudyRequest", "parse_controls", "parse_labels", "run_study"]
