"""Documentation is held to the code: public names have docstrings, and parameters are the signature's."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.docscrape import FunctionDoc

import headstart

OWNERS = {"torch_engine": "torch", "api": "starlette", "uploads": "starlette", "listening": "uvicorn"}


# what users call is documented in full; inside a package one line is enough
FACE = {
    f"headstart.{module}"
    for module in (
        "evaluation.clusters.clustered_score",
        "evaluation.compare.paired_difference",
        "evaluation.compare.verdict",
        "evaluation.intervals.wilson",
        "evaluation.metrics.evaluate",
        "graph.run.compile_graph",
        "scratch.losses.cross_entropy",
        "data.readers.load.load",
        "models.model.open_model",
        "interfaces.python.train",
        "interfaces.python.transfer",
        "interfaces.python.study",
        "interfaces.python.evaluate",
    )
}


def modules():
    for found in pkgutil.walk_packages(headstart.__path__, "headstart."):
        name = found.name.rsplit(".", 1)[-1]
        if name in OWNERS:
            pytest.importorskip(OWNERS[name])
        yield importlib.import_module(found.name)


def public():
    for module in modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if getattr(thing, "__module__", None) == module.__name__ and callable(thing):
                yield f"{module.__name__}.{name}", thing


def documented(thing) -> list[str]:
    doc = FunctionDoc(thing, doc=inspect.getdoc(thing))
    names = [part.strip().lstrip("*") for one in doc["Parameters"] for part in one.name.split(",")]
    return [name.partition(" ")[0] for name in names]


def parameters(thing) -> list[str]:
    return [name for name in inspect.signature(thing).parameters if name != "self"]


def faults_of(name: str, thing) -> list[str]:
    if not inspect.getdoc(thing):
        return [f"{name} has no docstring"]
    if not inspect.isfunction(thing):
        return []
    wrong = [
        f"{name}: {one} is documented and no parameter"
        for one in documented(thing)
        if one not in parameters(thing)
    ]
    if documented(thing):
        wrong += [
            f"{name}: {one} is not documented" for one in parameters(thing) if one not in documented(thing)
        ]
    if name in FACE and len(parameters(thing)) > 2 and not documented(thing):
        wrong.append(f"{name} documents none of its {len(parameters(thing))} parameters")
    return wrong


def test_public_names_are_documented_as_they_are():
    faults = [fault for name, thing in public() for fault in faults_of(name, thing)]
    assert not faults, "\n".join(faults)


def test_the_check_sees_a_wrong_docstring():
    def wrong(a: int, b: int) -> int:
        """Add.

        Parameters
        ----------
        a : int
            One.
        c : int
            Not there.
        """
        return a + b

    assert faults_of("wrong", wrong) == [
        "wrong: c is documented and no parameter",
        "wrong: b is not documented",
    ]
