"""Parts of reports that studies, transfers and recipes share: the table of a selection, and short names."""

from __future__ import annotations

from headstart.report.records import PlainTable
from headstart.strategies.select import PRIOR_NATS, Choice

__all__ = ["choice_table", "short_name"]


_SHOWN = 12  # trials in a report


def short_name(source: str) -> str:
    """A source's name without the folders above it.

    >>> short_name("timm:local-dir:/home/me/weights/resnet50"), short_name("timm:vgg16")
    ('resnet50', 'timm:vgg16')
    """
    return source.rstrip("/").rpartition("/")[2] if "/" in source else source


def choice_table(choice: Choice) -> PlainTable:
    """The best candidates of a selection, one line each."""
    lines = tuple(
        (
            one.title,
            one.described,
            f"{100 * one.accuracy.value:.2f}",
            f"{one.loss:.4f}",
        )
        for one in choice.trials[:_SHOWN]
    )
    prior = ""
    if choice.default is not None and len({(one.layer, one.pooling) for one in choice.trials}) > 1:
        prior = (
            f" Other places than the default ({', '.join(choice.default)}) had to gain {PRIOR_NATS:g} nats in all, "
            "since of a few images the best of many places is best by chance."
        )
    n_averaged = len(choice.selected)
    taken = "The first line was" if n_averaged == 1 else f"The mean of the first {n_averaged} lines was"
    left = len(choice.trials) - len(lines)
    more = f" {left} more were tried." if left else ""
    return PlainTable(
        "How layer, pooling and head were selected",
        f"Leave-one-out cross-validation on {choice.n_images:,} training images, {choice.n_tried:,} "
        f"candidates in {choice.seconds:.1f} s, the lowest loss first. {taken} selected by these "
        f"results, so their accuracy is optimistic and no estimate of the accuracy on new images.{prior}{more}",
        ("candidate", "setting", "accuracy, %", "loss, nats"),
        lines,
    )
