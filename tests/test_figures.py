"""README and docs quote results that are not older than their code: what tools/figures.py finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import blocks
import figures
import results
from digests import code_digest
from PIL import Image

SETTINGS = """
[documents]
numbers_in_blocks = ["README.md"]
not_measured = ["a 95 % interval"]

[keep]
scores = ["verdict", "rows.accuracy"]

[code]
heads = ["src/heads/*.py"]
no_figures = ["src/report.py"]

[figures.digits]
group = "fast"
text = true
commands = ["python print.py {out} {data}"]
part = "result"
keep = ["scores"]
depends = ["heads", "recipe.toml"]
blocks = ["digits"]
images = ["docs/digits.png"]

[figures.long]
group = "slow"
commands = ["python print.py {out}"]
depends = ["heads"]
"""
PRINT = """
import json, sys
from PIL import Image
print("read", *sys.argv[2:])
accuracy = {"value": 0.987, "low": 0.98, "high": 0.99, "n": 100}
rows = [{"strategy": "probe", "accuracy": accuracy, "seconds": 3}]
result = {"verdict": "With 5 labels, transfer helps.", "rows": rows, "facts": {"seed": 0}}
print(json.dumps({"report": "report.html", "result": result}))
"""
MODULE = '''"""Ridge."""

import numpy as np

__all__ = ["fit"]

STRENGTH = 1.0


def fit(rows: np.ndarray, penalty: float = 0.5) -> float:
    """Fit."""
    if penalty < 0:
        raise ValueError(f"penalty is {penalty}, expected 0 or more")
    # solved in closed form
    return float(rows.sum()) + penalty * STRENGTH
'''
README = """# Digits

<!-- figures: digits -->
<!-- /figures -->

Every score has a 95 % interval.
"""
TEMPLATE = """{% set r = figures["digits"] %}
*{{ r.verdict }}* The probe gets {{ r.rows[0].accuracy | scored }} % right.
"""


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> figures.Book:
    """A small checkout whose figures were run and rendered."""
    files = {
        "benchmarks/figures.toml": SETTINGS,
        "benchmarks/blocks/digits.md.j2": TEMPLATE,
        "src/heads/ridge.py": MODULE,
        "src/report.py": "COLOUR = 'blue'\n",
        "recipe.toml": 'title = "Digits"\nepochs = 5\n',
        "print.py": PRINT,
        "README.md": README,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "benchmarks/results").mkdir()
    (tmp_path / "docs").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "docs/digits.png")
    monkeypatch.setenv("HEADSTART_DATA", str(tmp_path / "some data"))
    made = figures.Book(tmp_path)
    assert figures.run(made, ["digits", "long"], "") == []
    results.stamp(tmp_path / "docs/digits.png", made.digest(made.figures["digits"]))
    assert figures.render(made) == []
    return figures.Book(tmp_path)


def found(book: figures.Book) -> list[str]:
    return list(figures.faults(figures.Book(book.root)))


def change(book: figures.Book, name: str, old: str, new: str) -> None:
    path = book.root / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_fresh_checkout_has_no_faults_and_prints_its_results(book: figures.Book):
    assert found(book) == []
    text = (book.root / "README.md").read_text(encoding="utf-8")
    assert (
        "*With 5 labels, transfer helps.* The probe gets 98.7 [98.0, 99.0] % right.\n<!-- /figures -->"
        in text
    )


def test_a_result_keeps_what_is_quoted_and_says_where_it_comes_from(book: figures.Book):
    whole = json.loads(book.place("digits").read_text(encoding="utf-8"))
    assert whole["result"] == {
        "verdict": "With 5 labels, transfer helps.",
        "rows": [{"accuracy": {"value": 0.987, "low": 0.98, "high": 0.99, "n": 100}}],
    }
    assert whole["commands"] == ["python print.py {out} {data}"]
    assert {"date", "machine", "versions", "commit", "seconds"} < set(whole)
    text = book.place("digits", ".txt")
    assert results.header_of(text) == results.header_of(book.place("digits"))
    assert text.read_text(encoding="utf-8").endswith("\n\nread {data}\n"), "no path of this machine"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("src/heads/ridge.py", "STRENGTH = 1.0", "STRENGTH = 1.1"),
        ("src/heads/ridge.py", "penalty: float = 0.5", "penalty: float = 0.6"),
        ("src/heads/ridge.py", "+ penalty", "- penalty"),
        ("src/heads/ridge.py", "rows.sum()", "rows.mean()"),
        ("src/heads/ridge.py", "penalty < 0", "penalty <= 0"),
        ("recipe.toml", "epochs = 5", "epochs = 6"),
        ("benchmarks/figures.toml", "{out} {data}", "{out} {data} --seed 1"),
    ],
)
def test_code_that_decides_a_figure_makes_it_stale(book: figures.Book, name: str, old: str, new: str):
    change(book, name, old, new)
    stale = [fault.partition(": stale")[0] for fault in found(book)]
    assert stale[0] == "benchmarks/results/digits.json and benchmarks/results/digits.txt"
    assert all("run: python tools/figures.py r" in fault for fault in found(book))


def test_a_document_says_that_a_result_is_older_than_its_code(book: figures.Book):
    change(book, "recipe.toml", "epochs = 5", "epochs = 6")
    stale, silent = found(book)
    assert ": stale, expected" in stale
    assert silent.startswith("README.md:3: block digits is not what its results say, expected")
    assert figures.render(figures.Book(book.root)) == []
    text = (book.root / "README.md").read_text(encoding="utf-8")
    date = results.header_of(book.place("digits")).date
    assert f"% right.\n\n*Measured on {date}, before later changes to the code.*\n<!-- /figures -->" in text
    assert found(book) == [stale], "what remains is a note"
    change(book, "recipe.toml", "epochs = 6", "epochs = 5")
    (claim,) = found(book)
    assert "block digits is not what its results say" in claim, (
        "a result of the present code is not called old"
    )


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("src/heads/ridge.py", '"""Ridge."""', '"""Ridge regression, in closed form."""'),
        ("src/heads/ridge.py", "# solved in closed form", "# one decomposition"),
        ("src/heads/ridge.py", "    return float", "\n    return float"),
        ("src/heads/ridge.py", "import numpy as np", "import numpy as np\nfrom other import place"),
        ("src/heads/ridge.py", "rows: np.ndarray", "rows: Array"),
        ("src/heads/ridge.py", "expected 0 or more", "expected a positive number; choose one"),
        ("src/heads/ridge.py", '["fit"]', '["STRENGTH", "fit"]'),
        ("src/report.py", "blue", "red"),
        ("recipe.toml", "Digits", "Handwritten digits"),
    ],
)
def test_words_and_layout_do_not(book: figures.Book, name: str, old: str, new: str):
    change(book, name, old, new)
    assert found(book) == []


def test_a_moved_module_does_not(book: figures.Book):
    (book.root / "src/models/heads").mkdir(parents=True)
    (book.root / "src/heads/ridge.py").rename(book.root / "src/models/heads/closed_form.py")
    change(book, "benchmarks/figures.toml", "src/heads/*.py", "src/models/heads/*.py")
    assert found(book) == []


def test_a_module_split_in_two_does_not(book: figures.Book):
    text = MODULE.replace("STRENGTH = 1.0\n", "from heads.strength import STRENGTH\n")
    (book.root / "src/heads/ridge.py").write_text(text, encoding="utf-8")
    (book.root / "src/heads/strength.py").write_text(
        '"""How strong."""\n\nSTRENGTH = 1.0\n', encoding="utf-8"
    )
    assert found(book) == []


def test_one_definition_of_a_module_can_be_named(tmp_path: Path):
    path = tmp_path / "records.py"
    path.write_text("class Settings:\n    epochs = 5\n\n\nclass Row:\n    name = ''\n", encoding="utf-8")
    before = code_digest([(path, "Settings")]), code_digest([(path, "")])
    path.write_text("class Settings:\n    epochs = 5\n\n\nclass Row:\n    title = ''\n", encoding="utf-8")
    after = code_digest([(path, "Settings")]), code_digest([(path, "")])
    assert before[0] == after[0] and before[1] != after[1]


def test_a_picture_of_an_older_figure_is_found(book: figures.Book):
    results.stamp(book.root / "docs/digits.png", "0" * 64)
    (fault,) = found(book)
    assert fault.startswith("docs/digits.png: not a picture of the present result")
    assert "tools/screenshots.py digits" in fault


def test_a_block_edited_by_hand_is_found_and_rendered_again(book: figures.Book):
    change(book, "README.md", "98.7", "99.9")
    (fault,) = found(book)
    assert fault.startswith("README.md:3: block digits is not what its results say, expected")
    assert figures.render(book) == [] and found(book) == []


def test_unknown_blocks_and_broken_markers_are_found(book: figures.Book):
    change(book, "README.md", "Every score", "<!-- figures: letters -->\n<!-- /figures -->\n\nEvery score")
    assert [fault for fault in found(book) if "block letters is unknown" in fault]
    change(book, "README.md", "<!-- figures: letters -->\n<!-- /figures -->", "<!-- figures: letters -->")
    (fault,) = found(book)
    assert "2 beginnings and 1 ends, expected pairs" in fault


def test_a_measured_number_outside_the_blocks_is_found(book: figures.Book):
    change(book, "README.md", "Every score", "It gets\n98.7 % right in 3.5 s. Every score")
    first, second = found(book)
    assert first.startswith("README.md:8: '98.7 %' is outside the figures' blocks, expected inside one")
    assert "'3.5 s'" in second


def test_a_sentence_that_its_numbers_contradict_is_found(book: figures.Book):
    claim = '{{ states(figures["digits"].rows[0].accuracy.value > 0.99, "the probe is nearly perfect") }}\n'
    path = book.root / "benchmarks/blocks/digits.md.j2"
    path.write_text(TEMPLATE + claim, encoding="utf-8")
    (fault,) = found(book)
    assert "block digits states that the probe is nearly perfect, which its results no longer show" in fault
    assert figures.render(book) != []


def test_code_and_files_that_nobody_listed_are_found(book: figures.Book):
    (book.root / "src/new.py").write_text("LEVEL = 0.05\n", encoding="utf-8")
    (book.root / "src/report.py").unlink()
    (book.root / "benchmarks/blocks/other.md.j2").write_text("", encoding="utf-8")
    (book.root / "benchmarks/results/other.txt").write_text("", encoding="utf-8")
    book.place("long").unlink()
    said = "\n".join(found(book))
    assert "src/new.py is in no group of [code]" in said
    assert "'src/report.py' matches nothing" in said
    assert "benchmarks/blocks/other.md.j2 is in the blocks of no figure" in said
    assert "benchmarks/results/other.txt belongs to no figure" in said
    assert "benchmarks/results/long.json is not there" in said


def test_a_result_without_a_header_is_found(book: figures.Book):
    book.place("digits", ".txt").write_text("98.7 %\n", encoding="utf-8")
    fault = found(book)[0]
    assert "benchmarks/results/digits.txt has no 'code' in its header" in fault


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise SystemExit(3)", "ended with status 3, expected 0"),
        ("print('no JSON')", "printed no JSON"),
        ("print('{}')", "has no 'result'"),
        ("open('src/heads/ridge.py', 'w').close(); print('{\"result\": {}}')", "changed while it ran"),
    ],
)
def test_a_run_that_fails_keeps_the_old_result(book: figures.Book, program: str, said: str):
    before = book.place("digits").read_bytes()
    (book.root / "print.py").write_text(program, encoding="utf-8")
    (fault,) = figures.run(book, ["digits"], "")
    assert said in fault and book.place("digits").read_bytes() == before


def test_a_variable_that_is_not_set_is_named(book: figures.Book, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HEADSTART_DATA")
    (fault,) = figures.run(book, ["digits"], "")
    assert fault.startswith("figure digits: HEADSTART_DATA not set, expected a path")


def test_groups_run_apart(book: figures.Book):
    for name in ("digits", "long"):
        book.place(name).unlink()
    assert figures.run(book, [], "slow") == []
    assert book.place("long").exists() and not book.place("digits").exists()


def test_paragraphs_are_filled_and_tables_are_not():
    text = blocks._wrapped("word " * 60 + "\n\n| a | b |\n|---|---|\n\n- one item " + "more " * 40)
    lines = text.splitlines()
    assert max(map(len, lines)) <= blocks.WIDTH and "| a | b |" in lines
    assert [line for line in lines if line.startswith("- ")] and [
        line for line in lines if line.startswith("  more")
    ]


def test_a_filled_line_does_not_begin_a_list():
    text = blocks._wrapped("x" * (blocks.WIDTH - 2) + " - 1. y")
    assert text.splitlines()[1] == "y"


def scores(strategy: str, few: float, all_: float) -> list[dict[str, object]]:
    return [
        {
            "strategy": strategy,
            "labels_per_class": n,
            "accuracy": {"value": v, "low": v - 0.01, "high": v + 0.005},
        }
        for n, v in ((5, few), (None, all_))
    ]


SCORES = {
    "rows": [*scores("probe", 0.9, 0.95), *scores("scratch", 0.8, 0.9504)],
    "comparisons": [
        {"strategy": "probe", "control": "scratch", "labels_per_class": n, "verdict": word}
        | {"difference": {"value": v, "low": v - 0.02, "high": v + 0.02}}
        for n, v, word in ((5, 0.1, "helps"), (None, -0.0004, "cannot tell apart"))
    ],
}


def test_tables_have_the_highest_in_bold_and_say_what_is_significant():
    names = {"probe": "the probe", "scratch": "from scratch"}
    assert blocks.labels_table(SCORES, names, of="probe", over="scratch").splitlines() == [
        "| labels per class | 5 | all |",
        "|---|---|---|",
        "| the probe | **90.0** [89.0, 90.5] | **95.0** [94.0, 95.5] |",
        "| from scratch | 80.0 [79.0, 80.5] | **95.0** [94.0, 95.5] |",
        "| probe - scratch, points | +10.0 [+8.0, +12.0]* | -0.0 [-2.0, +2.0] |",
    ]
    assert blocks.rows_table(SCORES, names, 5).splitlines()[2] == "| the probe | **90.0** | 89.0 to 90.5 |"


def test_asking_for_a_row_that_is_not_there_says_which():
    with pytest.raises(LookupError, match="'finetune' with 5 labels per class"):
        blocks.row(SCORES, "finetune", 5)


def test_the_check_of_this_checkout_finds_at_most_stale_results():
    done = subprocess.run(
        [sys.executable, figures.__file__, "check"], capture_output=True, text=True, check=False
    )
    other = [line for line in done.stderr.splitlines() if ": stale, expected" not in line]
    assert not other, "\n".join(other)
    assert done.returncode == 0
