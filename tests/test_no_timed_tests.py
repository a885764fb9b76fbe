"""No test asserts how long something takes: a busy or slow machine is no fault of the code.

A claim of speed is a benchmark. Waiting with a deadline is allowed, since it only ends a test that hangs.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
CLOCKS = frozenset(
    name + suffix
    for name in (
        "perf_counter",
        "monotonic",
        "process_time",
        "thread_time",
        "time",
        "timeit",
        "default_timer",
    )
    for suffix in ("", "_ns")
)


def reads_clock(node: ast.AST, timed: set[str]) -> bool:
    """Whether an expression calls a clock, or uses a name that holds what a clock said."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and ast.unparse(part.func).rpartition(".")[2] in CLOCKS:
            return True
        if isinstance(part, ast.Name) and part.id in timed:
            return True
    return False


def bindings(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """Targets and their values, of an assignment or of a call that adds to a list."""
    if isinstance(node, ast.Assign):
        pairs = [(target, node.value) for target in node.targets]
        return [
            part
            for target, value in pairs
            for part in (
                zip(target.elts, value.elts, strict=False)
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
                else [(target, value)]
            )
        ]
    if isinstance(node, ast.AugAssign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        return [(node.target, node.value)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return [(node.func.value, one) for one in node.args if node.func.attr in ("append", "extend", "add")]
    return []


def timed_names(function: ast.AST) -> set[str]:
    """Names that hold a time, directly or computed from another; also lists that a time is appended to."""
    timed: set[str] = set()
    size = -1
    while len(timed) > size:
        size = len(timed)
        for node in ast.walk(function):
            for target, value in bindings(node):
                if reads_clock(value, timed):
                    timed |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
    return timed


def timed_assertions(name: str, source: str) -> list[str]:
    """Assertions on a measured time, as ``file:line``."""
    found = set()
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            timed = timed_names(function)
            found |= {
                node.lineno
                for node in ast.walk(function)
                if isinstance(node, ast.Assert) and reads_clock(node.test, timed)
            }
    return [
        f"{name}:{line} asserts a measured time, expected a check of what is done" for line in sorted(found)
    ]


def test_no_test_asserts_a_time() -> None:
    faults = [
        fault
        for path in sorted(FOLDER.rglob("*.py"))
        for fault in timed_assertions(path.name, path.read_text())
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "body",
    [
        "assert time.monotonic() - begun < 5",
        "start = perf_counter()\n    assert perf_counter() - start < 1",
        "start = time.perf_counter()\n    took = time.perf_counter() - start\n    assert took < 1",
        "all = []\n    all.append(time.process_time())\n    assert min(all) < 1",
        "assert timeit.timeit(f, number=3) < 1",
        "if (now := time.time_ns()):\n        assert now",
        "begun, path = monotonic(), Path()\n    took = [monotonic() - begun]\n    assert took[0] < 1",
    ],
)
def test_a_timed_assertion_is_seen(body: str) -> None:
    assert len(timed_assertions("a.py", f"def test_it():\n    {body}\n")) == 1


@pytest.mark.parametrize(
    "body",
    [
        "limit = time.monotonic() + 60\n    while time.monotonic() < limit:\n        pass\n    assert done",
        "path, limit = Path(), time.monotonic() + 60\n    assert path.exists()",
        "assert record.seconds == 3",
        "assert time.sleep(1) is None",
    ],
)
def test_a_deadline_is_not(body: str) -> None:
    assert not timed_assertions("a.py", f"def test_it():\n    {body}\n")
