"""Every contestant of the registry: shown by the report, made by a study, left out where it does not apply."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.data.readers.load import load
from headstart.heads.registry import HEADS
from headstart.interfaces.cli.options import HeadName
from headstart.report.entries import ENTRIES
from headstart.report.figures import STYLES
from headstart.sources.features import PLAIN
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.scratch import learn_network
from headstart.workflows.comparison.protocol import rounds_of
from headstart.workflows.study.contestants import CONTESTANTS, CONTROLS
from headstart.workflows.study.context import Contestant, StudyContext
from headstart.workflows.study.request import StudyRequest, parse_controls
from headstart.workflows.study.run import _context

QUICK = hs.TrainSettings(epochs=1)
MADE = [one for one in CONTESTANTS.values() if one.make is not None]


@pytest.fixture(scope="module")
def study() -> StudyContext:
    """Parity of digits from a network that knows the digits: every control but fine-tuning applies."""
    digits = load("digits")
    digits = digits.subset(np.arange(300))
    trained = learn_network(digits, network="mlp", engine="scratch", settings=QUICK).model
    parity = load("digits:parity").subset(np.arange(300))
    request = StudyRequest(Probe("hidden2", "flat", "ridge"), labels_per_class=(), scratch=(QUICK, QUICK))
    return _context(trained.source("mlp"), parity, request, None, trained, PLAIN)


@pytest.mark.parametrize("one", CONTESTANTS.values(), ids=lambda one: one.name)
def test_the_report_shows_it(one: Contestant) -> None:
    assert ENTRIES[one.name] is one
    assert one.note and not one.note.endswith(".") and "\n" not in one.note and len(one.note) <= 60
    assert one.role in (*STYLES, "other")


def test_roles_of_the_palette_have_one_contestant_each() -> None:
    assert sorted(one.role for one in CONTESTANTS.values() if one.role != "other") == sorted(STYLES)


@pytest.mark.parametrize("one", MADE, ids=lambda one: one.name)
def test_a_study_makes_it(one: Contestant, study: StudyContext) -> None:
    assert one.make is not None
    made = one.make(study)
    if not one.control and one.name != "probe":
        assert made.strategy is None, "fine-tuning was not requested"
        return
    assert made.strategy is not None
    rounds: Any = rounds_of(study.setup.pool, len(study.setup.test), (), study.setup.protocol)
    train, test = rounds[None][0][0].train, rounds[None][0][0].test[:20]
    probabilities = made.strategy(train, test, 0)
    assert probabilities.shape == (len(test), 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_array_equal(made.strategy(train, test, 0), probabilities)


def test_pixels_as_a_source_have_no_transfer_controls() -> None:
    parity = load("digits:parity").subset(np.arange(300))
    source = open_source("pixels", parity)
    context = _context(source, parity, StudyRequest(Probe(head="ridge")), None, None, PLAIN)
    for name in ("raw pixels", "random frozen", "collapse"):
        make = CONTESTANTS[name].make
        assert make is not None and make(context).strategy is None, name


def test_every_control_is_an_option() -> None:
    assert parse_controls("all") == StudyRequest().controls == CONTROLS
    for name in CONTROLS:
        assert parse_controls(name) == (name,)
        assert f"``{name}``" in str(inspect.getdoc(hs.study))


@pytest.mark.parametrize("workflow", ["transfer.run", "tune.run", "study.run", "recipes.run"])
def test_every_workflow_that_shows_rows_knows_their_notes(workflow: str) -> None:
    """In a process of its own: reports of transfer had no notes where nothing else had loaded them."""
    code = (
        f"import headstart.workflows.{workflow}\n"
        "from headstart.report.entries import is_rival, note_of\n"
        "assert note_of('raw pixels') and note_of('majority') and not is_rival('majority')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_head_is_in_the_help_and_the_docs() -> None:
    texts = [str(inspect.getdoc(one)) for one in (hs.transfer, hs.TransferClassifier)]
    for name in HEADS:
        assert name in str(HeadName.__metadata__[0].help)
        assert all(name in text for text in texts)
