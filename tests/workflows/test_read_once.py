"""A transfer reads each file once: hashed, checked for faults and copies, looked at by controls, and prepared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.stores import FileImages
from headstart.interfaces.cli.console import opened
from headstart.sources.features import Extraction
from headstart.system.cache import NullCache
from headstart.system.progress import SILENT
from headstart.workflows.transfer.run import Transferred, run_transfer

N_CLASS = 20
SHOWN = 8 + 8  # images that a report shows as examples, and that a model keeps as samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, level in (("dim", 60), ("bright", 170)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for n in range(N_CLASS):
            rough = rng.integers(level - 50, level + 50, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(rough).resize((320, 240)).save(tmp_path / "photos" / label / f"{label}{n}.jpg")
    return tmp_path / "photos"


def transferred(folder: Path, *, plain: bool = False) -> Transferred:
    frozen, dataset = opened("drawings", str(folder), SILENT, strict=False)
    if plain:
        store = FileImages(dataset.images.paths or (), dataset.images.digests)
        object.__setattr__(dataset, "images", store)
    return run_transfer(frozen, dataset, options=Extraction(NullCache()))


@pytest.mark.slow
def test_each_file_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opens, real = Counter[str](), Path.open

    def noted(path: Path, *arguments: Any, **options: Any) -> Any:
        opens[path.name] += path.suffix == ".jpg"
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", noted)
    done = transferred(folder)
    counts = sorted(opens[name] for name in opens if name.endswith(".jpg"))
    assert len(counts) == 2 * N_CLASS
    assert counts[: len(counts) - SHOWN] == [1] * (len(counts) - SHOWN) and counts[-1] <= 3, counts
    opens.clear()
    again = transferred(folder, plain=True)
    assert min(opens[name] for name in opens if name.endswith(".jpg")) >= 4, (
        "the count sees what is read again"
    )
    scores = [[(row.strategy, row.accuracy) for row in one.result.rows] for one in (done, again)]
    assert scores[0] == scores[1], "what is kept changes no figure"
    assert done.learned.model.graph == again.learned.model.graph
