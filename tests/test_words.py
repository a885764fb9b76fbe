"""Plain words: banned words stay out of help texts, README, docs and error messages; links are valid."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer

import headstart
from headstart.interfaces.cli.main import app

PACKAGE = Path(headstart.__file__).parent
ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# decisions are dated records of what was decided in the words of the day
WRITTEN = [page for page in PAGES if "decisions" not in page.parts]

BANNED = (
    r"pictures?",
    r"taps?",
    r"tapped",
    r"asked",
    r"told",
    r"tells? apart",
    r"tell apart",
    r"parted",
    r"away with",
    r"of ours",
    r"beside",
    r"learnt",
    r"likeliest",
    r"commonest",
    r"what is said",
    r"is said",
    r"was not foreseen",
    r"how good it is",
    r"worth a trial",
    r"so strongly",
    r"go on",
    r"goes on",
    r"none of its own",
    r"opened from",
    r"held out for it",
    r"by hand of",
    r"from nothing",
    r"strangers?",
    r"garbled",
    r"looked at",
    r"even them out",
    r"says so",
    r"knows no",
    r"prepared alike",
    r"half-way",
    r"brought back",
    r"nothing chosen",
    r"agreed white",
    r"read off",
    r"what mattered",
    r"the least loss",
    r"does not pretend",
    r"teaches a head",
)
IN_ERRORS = (*BANNED, r"need", r"mend")
QUOTED = re.compile(r"```.*?```|`[^`]*`|<!-- figures: .*?<!-- /figures -->|\]\([^)]*\)", re.DOTALL)


def found_in(text: str, banned: tuple[str, ...] = BANNED) -> list[str]:
    """Banned words of a text; names in paths and options are none."""
    words = re.compile(rf"(?<![\w/.-])(?:{'|'.join(banned)})(?![\w/-]|\.\w)", re.IGNORECASE)
    return [match[0] for match in words.finditer(text)]


def commands(command, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=path[-1])
    yield " ".join(path), command.get_help(context)
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def helps() -> dict[str, str]:
    return dict(commands(typer.main.get_command(app), ("headstart",)))


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """The literal text of every error that a module raises."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            parts = [one.value for one in ast.walk(node.exc) if isinstance(one, ast.Constant)]
            yield node.lineno, " ".join(part for part in parts if isinstance(part, str))


def test_help_texts_use_plain_words():
    faults = [f"{name}: {found}" for name, text in helps().items() if (found := found_in(text))]
    assert not faults, "\n".join(faults)


def test_readme_and_docs_use_plain_words():
    faults = [
        f"{page.relative_to(ROOT)}: {found}"
        for page in WRITTEN
        if (found := found_in(QUOTED.sub("", page.read_text(encoding="utf-8"))))
    ]
    assert not faults, "\n".join(faults)


def test_error_messages_use_plain_words():
    faults = [
        f"{path.relative_to(PACKAGE)}:{line}: {found}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in messages(path)
        if (found := found_in(text, IN_ERRORS))
    ]
    assert not faults, "\n".join(faults)


def test_the_check_sees_banned_words_and_no_parts_of_others():
    assert found_in("A Picture is asked; --tap and tapestry, runs/picture.png, pictures.") == [
        "Picture",
        "asked",
        "pictures",
    ]


def test_help_shows_layer_and_hides_its_older_name():
    for name in ("headstart transfer", "headstart study"):
        assert "--layer" in helps()[name] and "--tap" not in helps()[name]


def anchors(page: Path) -> set[str]:
    """The anchors of a page as GitHub makes them from its headings."""
    heads = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_links_between_pages_lead_somewhere():
    faults = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if link.startswith(("http://", "https://", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                faults.append(f"{page.relative_to(ROOT)}: {link}")
    assert not faults, "\n".join(faults)
