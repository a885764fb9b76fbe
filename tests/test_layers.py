"""The shape of the code: imports go down, nothing heavy comes early, names are listed, sizes stay small.

One test per rule: it reads every module and reports all the faults of its kind at once.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import headstart

ROOT = Path(headstart.__file__).parent

# A unit is a module at the top or a package, lowest layer first; each may import those named, and itself.
LAYERS: dict[str, str] = {
    "errors": "",
    "records": "",
    "scratch": "errors",
    "evaluation": "errors records",
    "system": "errors records",
    "data": "errors records system",
    "report": "errors records evaluation",
    "graph": "errors records system data",
    "networks": "errors records system scratch graph",
    "models": "errors records system evaluation data report graph",
    "heads": "errors records system scratch evaluation data",
    "sources": "errors records system data graph networks models",
    "strategies": "errors records system scratch evaluation data report graph networks models heads sources",
    "workflows": "errors records system evaluation data report graph networks models heads sources "
    "strategies",
    "interfaces": "headstart errors records system evaluation data report graph networks models heads "
    "sources strategies workflows",
    "__main__": "interfaces",
}
# Heavier than standard library and NumPy, and the packages that may know of it.
OWNERS: dict[str, str] = {
    "torch": "networks sources",
    "timm": "sources",
    "huggingface_hub": "data sources",
    "fsspec": "data",
    "s3fs": "data",
    "gcsfs": "data",
    "pooch": "data",
    "requests": "data",
    "openvino": "graph",
    "onnxruntime": "graph",
    "onnx": "graph models sources strategies",
    "sklearn": "data interfaces",
    "matplotlib": "report",
    "jinja2": "report",
    "PIL": "data interfaces strategies",
    "safetensors": "networks models sources",
    "kornia": "data",
    "mlflow": "networks",
    "tensorboardX": "networks",
    "typer": "interfaces",
    "optuna": "workflows",
    "rich": "system",
    "pyarrow": "data models workflows",
    "ray": "system",
    "loky": "system",
    "starlette": "interfaces",
    "uvicorn": "interfaces",
    "prometheus_client": "interfaces",
    "gradio": "interfaces",
}
HEAVY = ("torch", "timm", "openvino", "onnx", "onnxruntime", "sklearn", "matplotlib", "scipy")
MODULE_LINES, FUNCTION_LINES = 400, 60


parsed = cache(ast.parse)  # several rules read the same modules


def modules() -> dict[str, Path]:
    """Dotted name to file, of every module of the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("headstart", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
SOURCES = {name: path.read_text() for name, path in MODULES.items()}


def all_faults(rule: Callable[[str, str], list[str]], *, but: Iterable[str] = ()) -> str:
    """What a rule finds in all modules, one fault per line; empty if there are none."""
    return "\n".join(
        fault for name, source in SOURCES.items() if name not in but for fault in rule(name, source)
    )


def imports(source: str, known: Iterable[str] = MODULES) -> set[str]:
    """Every module a source text imports, in functions and for type checkers too; relative ones with dots."""
    known, found = set(known), set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            below = {f"{base}.{alias.name}" for alias in node.names}
            found |= (below & known) | ({base} if below - known else set())
    return found


def unit(name: str) -> str:
    """The layer a module belongs to: ``headstart.data.readers.idx`` to ``data``."""
    return name.split(".")[1] if "." in name else name


def import_faults(name: str, source: str) -> list[str]:
    """What a module imports and must not."""
    mine, wrong = unit(name), []
    if mine not in LAYERS:
        return [f"{name} is in no row of the table of layers"]
    for other in sorted(imports(source)):
        top = other.partition(".")[0]
        if not top:
            wrong.append(f"{name} has the relative import {other}, expected the full name")
        elif top == "headstart":
            if unit(other) not in {mine, *LAYERS[mine].split()}:
                wrong.append(f"{name} imports {other}: {mine} may not know of {unit(other)}")
        elif top in OWNERS and mine not in OWNERS[top].split():
            wrong.append(f"{name} imports {other}: owned by {OWNERS[top]}")
    return wrong


def refuse_cycles(graph: dict[str, set[str]]) -> None:
    tuple(TopologicalSorter(graph).static_order())


def inner_imports(name: str) -> set[str]:
    return {other for other in imports(SOURCES[name]) if other in MODULES} - {name}


def test_table_goes_down_only() -> None:
    seen: list[str] = ["headstart"]
    for layer, below in LAYERS.items():
        assert not set(below.split()) - set(seen), f"{layer} stands below what it imports"
        seen.append(layer)


def test_table_holds_every_unit_and_no_other() -> None:
    assert {unit(name) for name in MODULES} - {"headstart"} == set(LAYERS)


def test_imports_go_down() -> None:
    found = all_faults(import_faults, but=["headstart"])
    assert not found, found


def test_no_row_allows_what_nobody_uses() -> None:
    used: dict[str, set[str]] = {mine: set() for mine in LAYERS}
    owners: dict[str, set[str]] = {top: set() for top in OWNERS}
    for name, source in SOURCES.items():
        for other in imports(source) if name != "headstart" else ():
            if other.partition(".")[0] == "headstart":
                used[unit(name)].add(unit(other))
        for top in OWNERS:  # by an import, or by name where it is optional
            if re.search(rf'^\s*(?:from|import) {top}\b|"{top}[".]', source, flags=re.M):
                owners[top].add(unit(name))
    unused = {mine: set(below.split()) - used[mine] for mine, below in LAYERS.items()}
    assert not {mine: names for mine, names in unused.items() if names}
    idle = {top: set(named.split()) - owners[top] for top, named in OWNERS.items()}
    assert not {top: names for top, names in idle.items() if names}


def test_no_cycle_between_modules() -> None:
    """The package's own face looks up every name on use, so it is left out."""
    graph = {name: inner_imports(name) for name in MODULES if name != "headstart"}
    refuse_cycles({name: others - {"headstart"} for name, others in graph.items()})


def test_heads_know_of_data_only_how_to_part_it() -> None:
    known = {other for name in MODULES if unit(name) == "heads" for other in inner_imports(name)}
    assert {other for other in known if unit(other) == "data"} == {"headstart.data.splits"}


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("headstart.heads.ridge", "from headstart.graph.build import pool", "heads may not know of graph"),
        (
            "headstart.graph.build",
            "def f():\n    from headstart.networks import training",
            "graph may not know of networks",
        ),
        (
            "headstart.scratch.layers",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from headstart.records import Array",
            "scratch may not know of records",
        ),
        ("headstart.report.page", "import headstart.graph.run", "report may not know of graph"),
        ("headstart.errors", "import headstart", "errors may not know of headstart"),
        ("headstart.strategies.probe", "def f():\n    import torch.nn", "owned by networks"),
        ("headstart.models.model", "from openvino import Core", "owned by graph"),
        ("headstart.data.readers.idx", "def f():\n    from .splits import split", "relative import .splits"),
        ("headstart.strange", "import math", "in no row of the table"),
    ],
)
def test_checker_sees_a_bad_import(name: str, source: str, said: str) -> None:
    assert len(import_faults(name, source)) == 1 and said in import_faults(name, source)[0]


def test_faults_of_all_modules_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("headstart.data.readers.idx", "headstart.models.model"):
        monkeypatch.setitem(SOURCES, name, "import gradio\nimport typer.main")
    found = all_faults(import_faults, but=["headstart"]).splitlines()
    assert [line.split(":")[0] for line in found] == [
        "headstart.data.readers.idx imports gradio",
        "headstart.data.readers.idx imports typer.main",
        "headstart.models.model imports gradio",
        "headstart.models.model imports typer.main",
    ]
    assert not all_faults(
        import_faults, but=["headstart", "headstart.data.readers.idx", "headstart.models.model"]
    )


def test_checker_sees_a_cycle_and_lets_good_imports_pass() -> None:
    with pytest.raises(CycleError):
        refuse_cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not import_faults(
        "headstart.sources.features", "import numpy\nfrom headstart.graph import build, runtime"
    )
    assert imports("from headstart.graph import build, nothing") == {
        "headstart.graph.build",
        "headstart.graph",
    }


HELP = """
import sys
sys.argv = ["headstart", "--help"]
from headstart.interfaces.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
LOADED = "import sys; print('loaded', *sorted({name.partition('.')[0] for name in sys.modules}))"


@pytest.mark.parametrize("program", ["import headstart", HELP, "import headstart.errors, headstart.records"])
def test_start_loads_nothing_heavy(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{LOADED}"], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = done.stdout.splitlines()[-1].split()
    assert loaded[0] == "loaded" and "headstart" in loaded
    assert not set(loaded) & set(HEAVY)


def test_loading_heavy_would_be_seen() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import headstart.evaluation.intervals\n{LOADED}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "scipy" in done.stdout.split()


def test_every_name_of_the_face_is_there() -> None:
    assert dir(headstart) == sorted(headstart.__all__)
    for name in headstart.__all__:
        assert getattr(headstart, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        headstart.nothing  # noqa: B018


@pytest.mark.parametrize("package", ["evaluation", "graph"])
def test_faces_of_packages_load_on_use(package: str) -> None:
    module = f"headstart.{package}"
    program = f"import {module}\n{LOADED}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(done.stdout.split()) & set(HEAVY)
    face = import_module(module)
    for name in face.__all__:
        assert getattr(face, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        face.nothing  # noqa: B018


def listed(tree: ast.Module) -> list[str] | None:
    """The module's ``__all__``, or None."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def in_order(names: Iterable[str]) -> list[str]:
    """Constants, then classes, then the rest, as ruff's RUF022 has it."""
    return sorted(names, key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))


def public(tree: ast.Module) -> set[str]:
    """Functions and classes a module offers; what a decorator hands to the command line is not offered."""
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any(".command(" in ast.unparse(one) for one in node.decorator_list)
    }


def bare(tree: ast.Module) -> bool:
    """A folder's first page: a docstring and nothing else."""
    return all(isinstance(node, ast.Expr) for node in tree.body)


def bound(tree: ast.Module) -> set[str]:
    """Names that a module assigns at its top or imports by name anywhere."""
    made = {
        ast.unparse(target) for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    }
    made |= {ast.unparse(node.target) for node in tree.body if isinstance(node, ast.AnnAssign)}
    return made | {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def introduction_faults(name: str, source: str) -> list[str]:
    """A module starts by saying what it is."""
    return [] if ast.get_docstring(parsed(source)) else [f"{name} has no docstring"]


def listing_faults(name: str, source: str) -> list[str]:
    """A module that holds code lists what it offers: everything public, nothing else, in order."""
    tree = parsed(source)
    if bare(tree):
        return []
    names = listed(tree)
    if name == "headstart.report":  # it says what it holds, and imports nothing
        offered = [*([] if names is None else ["__all__"]), *sorted(public(tree))]
        return [f"{name} offers {one}, expected nothing" for one in offered]
    if names is None:
        return [f"{name} has no __all__"]
    wrong = [] if names == in_order(names) else [f"{name}: __all__ is out of order"]
    wrong += [
        f"{name}: {one} is twice in __all__" for one in sorted({n for n in names if names.count(n) > 1})
    ]
    wrong += [f"{name}: {one} is public and not in __all__" for one in sorted(public(tree) - set(names))]
    there = bound(tree) | public(tree)
    return wrong + [f"{name}: {one} is in __all__ and not there" for one in sorted(set(names) - there)]


def test_modules_say_what_they_are() -> None:
    found = all_faults(introduction_faults, but=["headstart.__main__"])
    assert not found, found


def test_modules_list_what_they_offer() -> None:
    found = all_faults(listing_faults, but=["headstart.__main__"])
    assert not found, found


def test_checker_sees_a_bad_introduction() -> None:
    assert introduction_faults("headstart.a", "x = 1") == ["headstart.a has no docstring"]
    assert not introduction_faults("headstart.a", '"""One line."""\nx = 1')


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(): ...", ["has no __all__"]),
        (
            "__all__ = []\ndef f(): ...\nclass G: ...",
            ["G is public and not in __all__", "f is public and not"],
        ),
        ("__all__ = ['gone']", ["gone is in __all__ and not there"]),
        ("from a import f\ng: int = 1\n__all__ = ['g', 'f']", ["__all__ is out of order"]),
        ("from a import f\n__all__ = ['f', 'f']", ["f is twice in __all__"]),
        ("from a import f\nB = 1\n__all__ = ['B', 'f', 'g']\ndef g(): ...\ndef _h(): ...", []),
    ],
)
def test_checker_sees_a_bad_list(source: str, said: list[str]) -> None:
    found = listing_faults("headstart.a", source)
    assert len(found) == len(said) and all(one in fault for one, fault in zip(said, found, strict=True)), (
        found
    )


def test_checker_sees_a_package_that_offers_what_it_should_not() -> None:
    assert len(listing_faults("headstart.report", "__all__ = ['f']\ndef f(): ...")) == 2
    assert not listing_faults("headstart.report", "import math")


@cache
def code_lines(source: str) -> set[int]:
    """Numbers of the lines that are code: no docstring, comment or blank."""
    empty = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in empty:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(parsed(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return code


def function_lines(source: str) -> Iterator[tuple[str, int]]:
    code = code_lines(source)
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))


def module_size_faults(name: str, source: str) -> list[str]:
    lines = len(code_lines(source))
    return [f"{name} has {lines} lines of code, expected at most {MODULE_LINES}"] * (lines > MODULE_LINES)


def function_size_faults(name: str, source: str) -> list[str]:
    return [
        f"{name}: {what} has {lines} lines of code, expected at most {FUNCTION_LINES}"
        for what, lines in function_lines(source)
        if lines > FUNCTION_LINES
    ]


def test_modules_stay_small() -> None:
    found = all_faults(module_size_faults)
    assert not found, found


def test_functions_stay_small() -> None:
    found = all_faults(function_size_faults)
    assert not found, found


def test_checker_sees_what_is_too_long() -> None:
    long = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
    assert function_size_faults("headstart.a", long + "def g(): ...") == [
        "headstart.a: f has 61 lines of code, expected at most 60"
    ]
    assert not module_size_faults("headstart.a", "x = 1\n" * MODULE_LINES)
    assert module_size_faults("headstart.a", "x = 1\n" * (MODULE_LINES + 1)) == [
        "headstart.a has 401 lines of code, expected at most 400"
    ]


def test_line_counter_counts_code_only() -> None:
    body = '    """Doc."""\n\n    # why\n    y = """a\n    b"""\n    return y\n'
    source = '"""Doc.\n\nMore.\n"""\n\n# why\n\n\ndef f(\n    x,\n):\n' + body
    assert len(code_lines(source)) == 6
    assert dict(function_lines(source)) == {"f": 6}
