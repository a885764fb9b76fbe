"""Fine-tuning: it starts at the probe, keeps frozen what is frozen, never does worse on images held out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data import from_arrays
from headstart.data.dataset import Dataset
from headstart.data.images.prepare import prepare
from headstart.data.readers.load import load
from headstart.errors import HeadstartError, SettingError, SourceError
from headstart.graph.layers import network_graph
from headstart.heads.base import softmax
from headstart.heads.registry import make_head
from headstart.models.model import open_model
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.networks.training import fit
from headstart.records import InputSpec, Source, TrainSettings
from headstart.sources.features import Extraction
from headstart.sources.networks import spec_source
from headstart.sources.random_network import random_source
from headstart.sources.registry import open_source
from headstart.strategies.finetune import decide as finetune
from headstart.strategies.finetune.decide import (
    FINETUNE_NAMES,
    Decision,
    DepthTrial,
    Finetuner,
    finetune_strategies,
    sentence_of,
)
from headstart.strategies.finetune.model import attempt
from headstart.strategies.finetune.options import FinetuneOptions, depths_of, parse_finetune, parse_strategies
from headstart.strategies.finetune.rules import (
    alpha_for,
    augmentation_for,
    dropout_for,
    settings_for,
    side_of,
)
from headstart.strategies.finetune.train import FineTuned, starting_head, unfreeze_and_train
from headstart.strategies.fits import Chooser, Reader
from headstart.strategies.parts import TrainingParts
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.workflows.study.request import StudyRequest
from headstart.workflows.study.run import run_study
from headstart.workflows.transfer.run import run_transfer

pytest.importorskip("torch", reason="needs torch")
timm = pytest.importorskip("timm", reason="needs timm")

SHORT = {"epochs": 1, "precision": "fp32"}
FP32 = Extraction(precision="fp32")
EIGHT = InputSpec(28, 28, 1)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Shuffled: neighbours are by the same hand."""
    whole = load("digits")
    return whole.subset(np.random.default_rng(0).permutation(len(whole)))


@pytest.fixture(scope="module")
def source(digits: Dataset) -> Source:
    """A small network with batch norm, trained on half of the classes."""
    low = digits.subset(np.flatnonzero(np.isin(digits.labels, list("01234"))))
    spec = architecture("best", EIGHT, 5)
    network = make_network(spec, "torch", 0)
    fit(
        network,
        prepare(low, EIGHT),
        low.codes() % 5,
        TrainSettings(epochs=2, batch_size=32, learning_rate=3e-3, precision="fp32"),
    )
    return spec_source("low digits", spec, network_graph(spec, network.weights()), network.weights())


@pytest.fixture(scope="module")
def pool(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(240))


@pytest.fixture(scope="module")
def asked(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(240, 640))


@pytest.fixture(scope="module")
def photos_source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A tiny network of timm with batch norm, as timm saves one."""
    return saved("test_resnet", tmp_path_factory)


def saved(name: str, tmp_path_factory: pytest.TempPathFactory) -> Source:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(3)
    network = timm.create_model(name, num_classes=7).eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
    folder = tmp_path_factory.mktemp("weights") / "mine"
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    about = {"input_size": [3, 64, 64], "num_classes": 7, "license": "mit", "interpolation": "bicubic"}
    config = {"architecture": name, "num_classes": 7, "pretrained_cfg": about}
    (folder / "config.json").write_text(json.dumps(config))
    return open_source(f"timm:local-dir:{folder}", photos(8), 0)


def photos(n: int, side: int = 40) -> Dataset:
    rng = np.random.default_rng(n)
    labels = np.array(["dark", "light"])[np.arange(n) % 2]
    images = rng.integers(0, 120, (n, side, side, 3)) + 100 * (labels == "light")[:, None, None, None]
    return from_arrays(images.astype(np.uint8), labels)


def trained(
    source: Source,
    data: Dataset,
    place: tuple[str, str],
    depth: str,
    alpha: float | None = None,
    **changes: Any,
) -> FineTuned:
    reader = Reader(source, data, data, FP32)
    rows, codes = reader.rows(place), data.codes()
    head = make_head("ridge").fit(rows, data.labels, classes=data.classes)
    finetune = FinetuneOptions(depth, alpha=alpha, settings={**SHORT, **changes})
    return unfreeze_and_train(
        source,
        place,
        starting_head(head, rows, codes, data.classes, 0),
        prepare(data, source.input),
        codes,
        data.classes,
        finetune=finetune,
        depth=depth,
        settings=settings_for(len(data), side_of(source), finetune, 0),
        held=(prepare(data, source.input), codes),
    )


PLACES = {"ours": ("block4", "flat"), "timm": ("stage5", "avg"), "joined": ("stage4+stage5", "grid2")}


@pytest.mark.parametrize("which", PLACES)
def test_it_starts_where_the_probe_stands(
    which: str, source: Source, photos_source: Source, pool: Dataset
) -> None:
    own, data = (source, pool) if which == "ours" else (photos_source, photos(12))
    rows = Reader(own, data, data, FP32).rows(PLACES[which])
    head = make_head("ridge").fit(rows, data.labels, classes=data.classes)
    opened = trained(own, data, PLACES[which], "head", learning_rate=1e-12)
    assert opened.logits is not None
    wanted = np.log(np.maximum(head.probabilities(rows), 1e-30))
    found = opened.logits - opened.logits.max(axis=1, keepdims=True)
    found = found - np.log(np.exp(found).sum(axis=1, keepdims=True))
    assert np.abs(np.exp(found) - np.exp(wanted)).max() < 1e-3


@pytest.mark.parametrize("which", PLACES)
def test_the_graph_answers_as_torch_does(
    which: str, source: Source, photos_source: Source, pool: Dataset
) -> None:
    own, data = (source, pool) if which == "ours" else (photos_source, photos(12))
    opened = trained(own, data, PLACES[which], "all", learning_rate=3e-3)
    rows = Reader(opened.source, data, data, FP32).rows(PLACES[which])
    assert opened.logits is not None
    by_graph = opened.head.probabilities(rows)
    assert np.abs(by_graph - softmax(opened.logits)).max() < 1e-3
    assert opened.source.fingerprint != own.fingerprint


@pytest.mark.parametrize("batch_norm", ["learn", "frozen"])
@pytest.mark.parametrize(
    "depth", ["head", "last", *(pytest.param(more, marks=pytest.mark.slow) for more in ("2", "3", "all"))]
)
def test_frozen_means_frozen_at_every_depth(
    depth: str, batch_norm: str, source: Source, pool: Dataset
) -> None:
    opened = trained(source, pool, ("block4", "flat"), depth, batch_norm=batch_norm, learning_rate=1e-2)
    assert source.network is not None
    assert opened.source.network is not None
    before, after = source.network[1], opened.source.network[1]
    n_unfrozen = {"head": 0, "last": 1, "2": 2, "3": 3, "all": 4}[depth]
    assert (opened.n_unfrozen, opened.n_parts) == (n_unfrozen, 4)
    for name, value in after.items():
        layer = int(name.partition(".")[0][-1])
        moves = layer > 4 - n_unfrozen and (batch_norm == "learn" or name.startswith("conv"))
        assert np.array_equal(value, before[name]) != moves, name


def test_alpha_says_how_far_along_the_line_the_weights_go(source: Source, pool: Dataset) -> None:
    whole, half = (
        trained(source, pool, PLACES["ours"], "2", alpha=alpha, batch_norm="learn", learning_rate=1e-2)
        for alpha in (1.0, 0.5)
    )
    assert source.network and whole.source.network and half.source.network
    moved = 0
    for name, value in half.source.network[1].items():
        start, end = source.network[1][name], whole.source.network[1][name]
        assert np.allclose(value, (start + end) / 2, atol=1e-6), name
        moved += not np.array_equal(start, end)
        assert np.array_equal(value, start) == np.array_equal(start, end), "what is frozen stays, to the bit"
    assert moved == 2 * 6, "kernel, bias, scale, shift, mean and variance of two parts"
    assert half.logits is not None
    rows = Reader(half.source, pool, pool, FP32).rows(PLACES["ours"])
    assert np.abs(half.head.probabilities(rows) - softmax(half.logits)).max() < 1e-3, "judged as it is used"


def test_few_photos_go_half_the_way_and_what_is_unlike_them_all_of_it(
    source: Source, photos_source: Source
) -> None:
    large = replace(photos_source, notes={**photos_source.notes, "size_px": 224})
    assert alpha_for(200, large, FinetuneOptions()) == 0.5
    assert alpha_for(5_000, large, FinetuneOptions()) == 1.0
    assert alpha_for(200, replace(large, input=replace(large.input, channels=1)), FinetuneOptions()) == 1.0
    assert alpha_for(200, source, FinetuneOptions()) == 1.0
    assert alpha_for(200, large, FinetuneOptions(alpha=0.9)) == 0.9
    for wrong in (0.0, 1.5):
        with pytest.raises(SettingError, match=r"alpha is .*, expected a share in \(0, 1\]"):
            FinetuneOptions(alpha=wrong)


@pytest.fixture(scope="module", params=["test_resnet", "test_efficientnet"])
def normed_source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Batch norms alone, and batch norms with an activation inside: those are no leaves."""
    return saved(str(request.param), tmp_path_factory)


@pytest.mark.parametrize("batch_norm", ["learn", "frozen"])
@pytest.mark.parametrize("depth", ["head", "last", "2", "all"])
def test_frozen_means_frozen_in_networks_of_timm(depth: str, batch_norm: str, normed_source: Source) -> None:
    from headstart.networks.engines.torch_finetune import AffineMap, FinetuneNetwork
    from headstart.sources.timm.body import timm_body

    photos_source = normed_source
    body = timm_body(photos_source, "stage5")
    zeros = np.zeros(body.shapes["stage5"][0], np.float32)
    head = AffineMap(zeros, zeros + 1, np.zeros((len(zeros), 2), np.float32), np.zeros(2, np.float32))
    network = FinetuneNetwork(body, "avg", head, photos_source.input)
    network.unfreeze_last({"head": 0, "last": 1, "2": 2}.get(depth))
    sums, before = network.checksum(), network.weights()
    data = photos(12)
    fit(
        network,
        prepare(data, photos_source.input),
        data.codes(),
        TrainSettings(epochs=2, batch_size=4, learning_rate=1e-2, ema=0.9, batch_norm=batch_norm),
    )
    assert network.checksum() == sums
    after = network.weights()
    moved = {name for name, value in after.items() if not np.array_equal(value, before[name])}
    tops = (".fc.", ".classifier.", ".head.", "conv_head", "bn2")  # its own top is not in use
    frozen = {name for name in set(after) - moved if not any(top in name for top in tops)}
    assert "dense.weight" in moved
    learning = batch_norm == "learn"
    assert (not frozen) == (depth == "all" and learning), sorted(frozen)
    assert any(name.endswith((".mean", ".variance")) for name in moved) == (depth != "head" and learning)


def test_a_part_that_changes_is_noticed(
    source: Source, pool: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.networks.engines.torch_finetune import FinetuneNetwork

    sums = iter("ab")
    monkeypatch.setattr(FinetuneNetwork, "checksum", lambda self: next(sums))
    with pytest.raises(HeadstartError, match="frozen layers of source 'low digits' changed"):
        trained(source, pool, ("block4", "flat"), "last")


def tuner(source: Source, pool: Dataset, asked: Dataset, **settings: Any) -> Finetuner:
    reader = Reader(source, pool, asked)
    finetune = FinetuneOptions("all", settings={**SHORT, **settings})
    return Finetuner(reader, Chooser(reader, Probe("block4", "flat", "ridge")), finetune)


def test_it_is_taken_only_where_it_is_better() -> None:
    probe = DepthTrial("probe", 0.9, 0.3)
    sure, likely, unsure = (DepthTrial("all", 0.92, 0.2, 3, 0.1, error) for error in (0.04, 0.07, 0.11))
    assert Decision(probe, (sure,), 50).accepted
    assert Decision(probe, (likely,), 50).accepted
    assert not Decision(probe, (unsure,), 50).accepted  # one image more may be chance
    for one in (Decision(probe, (likely,), 50, picked=True), Decision(probe, (likely, unsure), 50)):
        assert not one.accepted, "the luck of an epoch or a depth picked on the same images"
    assert Decision(probe, (sure, unsure), 50, picked=True).accepted
    assert Decision(probe, (replace(sure, accuracy=0.9),), 50).accepted  # as many right, and surer of them
    assert not Decision(probe, (replace(sure, accuracy=0.89),), 50).accepted
    assert not Decision(replace(probe, accuracy=1.0), (replace(sure, accuracy=1.0),), 50).accepted
    assert not Decision(None, (), 0).accepted
    worse, last = replace(sure, accuracy=0.8), replace(sure, depth="last", loss=0.1)
    assert Decision(probe, (worse, sure, last), 50).best == last


def test_the_sentence_gives_the_losses_and_the_rule() -> None:
    """More images right is not enough, and a sentence without the rule contradicts its figures."""
    probe = DepthTrial("probe", 0.9367, 0.2)
    unsure = Decision(probe, (DepthTrial("all", 0.9494, 0.19, 3, 0.01, 0.015),), 158, picked=True)
    assert unsure.sentence == (
        "The probe was kept: fine-tuned (unfrozen: all) 94.94% of 158 held-out images are right with a loss "
        "of 0.1900 nats, with the probe 93.67% with 0.2000. The loss is lower by 0.0100, the threshold is "
        "0.0247. The rule: no fewer held-out images right than with the probe, and a loss that is lower by "
        "more than 1.645 standard errors of the difference."
    )
    sure = Decision(probe, (DepthTrial("all", 0.9494, 0.15, 3, 0.05, 0.01),), 158)
    assert sure.sentence.startswith("The fine-tuned network was kept: ")
    assert "lower by 0.0500, the threshold is 0.0100" in sure.sentence
    worse = Decision(probe, (DepthTrial("all", 0.9, 0.3, 3, -0.1, 0.01),), 158)
    assert "The loss is higher by 0.1000" in worse.sentence
    untried = Decision(replace(probe, accuracy=1.0), (), 158)
    assert "all 158 held-out images right" in untried.sentence and not untried.accepted
    perfect = Decision(replace(probe, accuracy=1.0), (DepthTrial("all", 1.0, 0.1, 3, 0.1, 0.01),), 158)
    assert "nothing can be gained" in perfect.sentence
    broken = DepthTrial("2", 1.0, float("nan"), 3, float("nan"), float("nan"))
    assert "diverged" in Decision(probe, (broken,), 158).sentence
    assert Decision(probe, (broken, *sure.trials), 158).best == sure.trials[0]
    for one in (unsure, sure, worse, perfect):
        assert "opened" not in one.sentence


@pytest.mark.parametrize("rate", [1e9, 1e30])
def test_what_diverges_leaves_the_probe(source: Source, pool: Dataset, rate: float) -> None:
    spoilt = tuner(source, pool, pool, learning_rate=rate, clip=0.0, batch_norm="learn")
    decision = spoilt.decide(np.arange(len(pool)), 0)
    assert not decision.accepted and decision.sentence.startswith("The probe was kept")


def test_spoilt_it_answers_as_the_probe_does(source: Source, pool: Dataset, asked: Dataset) -> None:
    spoilt = tuner(source, pool, asked, learning_rate=30.0, clip=0.0)
    learn, everyone = np.arange(len(pool)), np.arange(len(asked))
    decision = spoilt.decide(learn, 0)
    assert decision.best is not None
    assert decision.probe is not None
    assert decision.best.accuracy < decision.probe.accuracy
    safe, unchecked = finetune_strategies(spoilt).values()
    assert np.array_equal(safe(learn, everyone, 0), spoilt.probe_probabilities(learn, everyone, 0))
    truth = asked.codes()
    assert (unchecked(learn, everyone, 0).argmax(1) == truth).mean() < 0.5
    assert "was kept, in 0 of 1 fits" in sentence_of(spoilt.decisions)


@pytest.mark.slow
def test_it_helps_where_the_probe_is_poor(pool: Dataset, asked: Dataset) -> None:
    """On a network that nobody trained there is much to learn."""
    reader = Reader(random_source(architecture("cnn", EIGHT, 10), 0), pool, asked)
    finetune = FinetuneOptions("all", settings={"epochs": 90, "precision": "fp32"})
    one = Finetuner(reader, Chooser(reader, Probe("hidden1", "flat", "ridge")), finetune)
    learn, everyone, truth = np.arange(150), np.arange(len(asked)), asked.codes()
    probed = (one.probe_probabilities(learn, everyone, 0).argmax(1) == truth).mean()
    opened = (one.strategy()(learn, everyone, 0).argmax(1) == truth).mean()
    assert one.decide(learn, 0).accepted
    assert opened > probed + 0.02
    assert "was kept, in 1 of 1 fits (unfrozen: all)" in sentence_of(one.decisions)


@pytest.mark.slow
def test_no_label_of_what_is_asked_is_seen(source: Source, pool: Dataset, asked: Dataset) -> None:
    learn, everyone = np.arange(len(pool)), np.arange(len(asked))
    found = []
    for labels in (asked.labels, np.roll(asked.labels, 1)):
        one = tuner(source, pool, replace(asked, labels=labels))
        found.append(one.strategy(checked=False)(learn, everyone, 0))
    assert np.array_equal(*found)


def test_with_one_image_of_a_class_the_probe_stays(source: Source, pool: Dataset, asked: Dataset) -> None:
    one = tuner(source, pool, asked)
    learn = np.array([int(np.flatnonzero(pool.labels == name)[0]) for name in pool.classes])
    everyone = np.arange(20)
    assert one.decide(learn, 0).n_held == 0
    assert np.array_equal(one.strategy()(learn, everyone, 0), one.probe_probabilities(learn, everyone, 0))
    assert "1 fit had too few images" in sentence_of(one.decisions)


@pytest.mark.slow
def test_few_images_are_judged_in_folds_and_many_by_a_fifth(
    source: Source, pool: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "_FEW", 200)
    one = tuner(source, pool, pool)
    assert one.decide(np.arange(60), 0).n_held == 60
    assert one.decide(np.arange(240), 0).n_held == 48


@pytest.mark.slow
def test_what_is_judged_is_what_is_used(
    source: Source, pool: Dataset, asked: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refit is as long as what was judged; an epoch's luck comes back only where its weights stay."""
    given: list[TrainSettings] = []
    real = finetune.unfreeze_and_train

    def watched(*words: Any, **settings: Any) -> FineTuned:
        given.append(settings["settings"])
        return real(*words, **settings)

    monkeypatch.setattr(finetune, "unfreeze_and_train", watched)
    everyone = np.arange(20)
    tuner(source, pool, asked).strategy(checked=False)(np.arange(90), everyone, 0)
    assert len(given) == 4, "three folds and a refit"
    assert {(one.epochs, one.patience) for one in given} == {(given[0].epochs, 0)}
    given.clear()
    monkeypatch.setattr(finetune, "_REFIT", 80)
    tuner(source, pool, asked).strategy(checked=False)(np.arange(90), everyone, 0)
    assert len(given) == 3 and {one.patience - one.epochs for one in given} == {0}


def test_the_head_leaves_out_some_of_what_it_reads_while_it_learns(source: Source, pool: Dataset) -> None:
    reader = Reader(source, pool, pool, FP32)
    rows, codes = reader.rows(PLACES["ours"]), pool.codes()
    start = starting_head(None, rows, codes, pool.classes, 0)
    images, found = prepare(pool, source.input), []
    for dropout in (0.0, 0.9):
        finetune = FinetuneOptions("head", dropout=dropout, settings={**SHORT, "learning_rate": 1e-12})
        settings = settings_for(len(pool), 28, finetune, 0)
        place, held = PLACES["ours"], (images, codes)
        found.append(
            unfreeze_and_train(
                source,
                place,
                start,
                images,
                codes,
                pool.classes,
                finetune=finetune,
                depth="head",
                settings=settings,
                held=held,
            )
        )
    without, with_much = found
    assert with_much.history[0].train_loss > 1.3 * without.history[0].train_loss
    assert np.allclose(with_much.logits, without.logits, atol=1e-4), "never where it answers"


@pytest.mark.slow
def test_classes_count_alike_where_the_probe_balances(
    source: Source, pool: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    real = finetune.unfreeze_and_train

    def watched(*words: Any, **settings: Any) -> FineTuned:
        given.append((words[4], settings["shares"]))
        return real(*words, **settings)

    monkeypatch.setattr(finetune, "unfreeze_and_train", watched)
    reader = Reader(source, pool, pool)
    for balance in (False, True):
        chooser = Chooser(reader, Probe("block4", "flat", "ridge", balance=balance))
        Finetuner(reader, chooser, FinetuneOptions("last", settings=SHORT)).decide(np.arange(230), 0)
    (_, plain), (codes, shares) = given[0], given[-1]
    assert plain is None
    totals = np.bincount(codes, shares)
    assert np.allclose(totals, totals[0])
    assert len(set(np.bincount(codes))) > 1


@pytest.mark.slow
def test_networks_are_not_held_for_later(
    source: Source, pool: Dataset, asked: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "_FEW", 100)
    monkeypatch.setattr(finetune, "_REFIT", 100)  # so that the network judged is the one that answers
    one = tuner(source, pool, asked)
    learn, everyone = np.arange(len(pool)), np.arange(len(asked))
    one.decide(learn, 0)
    assert len(one._reusable) == 1
    safe, unchecked = finetune_strategies(one).values()
    safe(learn, everyone, 0)
    assert not one._reusable
    unchecked(learn, everyone, 0)
    assert len(one._kept_probabilities) == 1


@pytest.mark.slow
def test_a_study_shows_it_beside_the_probe(source: Source, digits: Dataset) -> None:
    some = digits.subset(np.arange(0, 1797, 3))
    wanted = StudyRequest(
        Probe("block4", "flat", "ridge"),
        "holdout",
        (5,),
        True,
        2,
        ("majority",),
        finetune=FinetuneOptions("last", settings=SHORT),
    )
    result = run_study(source, some, wanted)
    rows = {(row.strategy, row.labels_per_class) for row in result.rows}
    assert {(name, budget) for name in FINETUNE_NAMES for budget in (5, None)} <= rows
    pairs = {(one.strategy, one.control) for one in result.comparisons}
    assert pairs == {("probe", "majority"), ("finetune", "probe")}
    assert "Fine-tuning against the probe: with 5 labels" in result.verdict
    assert any("fits" in text and "The fine-tuned network was better" in text for text in result.remarks)


@pytest.mark.slow
@pytest.mark.parametrize("accepted", [True, False])
def test_a_transfer_keeps_the_better_model(
    accepted: bool, source: Source, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Decision, "accepted", property(lambda self: accepted))
    done = run_transfer(
        source,
        digits.subset(np.arange(900)),
        Probe("block4", "flat", "ridge"),
        finetune=FinetuneOptions("last", settings=SHORT),
    )
    model = done.learned.model
    assert model.manifest.strategy == ("finetune" if accepted else "probe")
    kept = "The fine-tuned network was kept" if accepted else "The probe was kept"
    assert any(text.startswith(kept) for text in done.result.remarks)
    assert done.result.tables[0].title == "Depths of fine-tuning"
    assert model.manifest.settings.get("alpha") == (1.0 if accepted else None)
    model.save(tmp_path / "m")
    card = (tmp_path / "m" / "card.md").read_text(encoding="utf-8")
    assert ("fine-tuned (1 of 4 parts unfrozen)" in card) == accepted
    assert ("frozen\n" in card) == (not accepted)
    again = open_model(tmp_path / "m")
    some = digits.subset(np.arange(900, 960))
    assert np.array_equal(again.probabilities(some), model.probabilities(some))
    assert (again.probabilities(some).argmax(1) == some.codes()).mean() > 0.8
    assert again.manifest.novelty


def test_nothing_is_trained_where_the_probe_gets_every_held_out_image_right(pool: Dataset) -> None:
    """No network could replace it: the training took minutes, and its result was always dropped."""
    images = np.repeat(np.array([20, 220], np.uint8), 20)[:, None, None] * np.ones((40, 8, 8), np.uint8)
    easy = from_arrays(images, ["dark"] * 20 + ["light"] * 20)
    source = random_source(architecture("best", EIGHT, 2), 0)
    parts = TrainingParts(easy, None)
    probe = Probe("block4", "flat", "ridge")
    learned = learn_head(source, easy, probe, options=FP32)
    tried = attempt(source, easy, learned, probe, FinetuneOptions(settings=SHORT), parts, options=FP32)
    assert tried.decision.trials == () and tried.decision.n_held == 40 and tried.learned is learned
    assert "gets all 40 held-out images right" in tried.sentence


TRANSFORMER = {"layer": "cls5+cls6+stage6", "pooling": "avg", "head": "linear"}


@pytest.mark.slow
def test_a_transformer_of_a_size_of_one_s_own_is_fine_tuned_where_it_is_read(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Its class tokens and maps in torch are those of the graph."""
    import torch

    from headstart.sources.timm.body import timm_body

    first = saved("test_vit", tmp_path_factory)
    source = open_source(first.name, photos(8, 100), 0, 64)
    assert source.notes["size_px"] == 64 and TRANSFORMER["layer"].split("+")[0] in source.layers
    data = photos(24, 100)
    body = timm_body(source, TRANSFORMER["layer"])
    images = prepare(data, source.input)
    pixels = torch.tensor(((images / 255 - source.input.mean) / source.input.std).astype(np.float32))
    with torch.inference_mode():
        parts = body.module.eval()(pixels.permute(0, 3, 1, 2))
    rows = torch.cat([one if one.ndim == 2 else one.mean((2, 3)) for one in parts], 1).numpy()
    place = TRANSFORMER["layer"], TRANSFORMER["pooling"]
    wanted = Reader(source, data, data, FP32).rows(place)
    assert rows.shape == wanted.shape and np.abs(rows - wanted).max() <= 1e-3 * np.abs(wanted).max()
    tuned = trained(source, data, place, "all", alpha=1.0)
    assert tuned.source.notes["size_px"] == 64 and tuned.source.notes["licence"] == "mit"


@pytest.mark.slow
def test_a_network_of_timm_becomes_a_model(photos_source: Source, tmp_path: Path) -> None:
    tuned = run_transfer(
        photos_source,
        photos(120),
        Probe("stage5", "avg", "linear"),
        finetune=FinetuneOptions("all", settings=SHORT),
    )
    tuned.learned.model.save(tmp_path / "m")
    assert open_model(tmp_path / "m").classes == ("dark", "light")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: FinetuneOptions("most"), "unfreeze is 'most', expected head, last, all, auto or a number"),
        (
            lambda: FinetuneOptions(settings={"epoch": 3}),
            "setting 'epoch' is unknown, expected one of TrainSettings",
        ),
        (
            lambda: parse_strategies("probe,finetunes"),
            "strategy is 'finetunes', expected some of probe",
        ),
        (lambda: FinetuneOptions(dropout=1.0), r"dropout is 1.0, expected a share in \[0, 1\)"),
        (lambda: parse_finetune("probe", "all"), "unfreeze is 'all' without the strategy finetune"),
    ],
)
def test_a_wish_without_meaning_is_one_sentence(call: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        call()


def test_what_has_no_network_cannot_be_opened(pool: Dataset) -> None:
    with pytest.raises(
        SourceError, match="source 'pixels' has no network that can be fine-tuned, expected photos, "
    ):
        trained(open_source("pixels", pool), pool, ("values", "flat"), "all")


def test_the_rule_depends_on_the_data_alone() -> None:
    small = settings_for(1_000, 28, FinetuneOptions(), 0)
    photo = settings_for(244, 224, FinetuneOptions(), 0)
    assert small.epochs > settings_for(10_000, 28, FinetuneOptions(), 0).epochs >= 3
    assert (small.mixup, small.batch_norm) == (0.0, "learn")
    assert settings_for(100, 28, FinetuneOptions(), 0).batch_norm == photo.batch_norm == "frozen"
    assert photo.mixup == photo.label_smoothing == 0.0
    many = settings_for(5_000, 224, FinetuneOptions(), 0)
    assert min(many.mixup, many.label_smoothing) > 0 and many.batch_norm == "learn"
    assert settings_for(244, 224, FinetuneOptions(), 0, handwriting=True).learning_rate > photo.learning_rate
    assert dropout_for(28, FinetuneOptions()) > dropout_for(224, FinetuneOptions()) == 0
    assert settings_for(10_000, 28, FinetuneOptions(), 0).batch_norm == "learn"
    assert not augmentation_for(EIGHT, ("ant", "bee"), FinetuneOptions()).flips
    assert augmentation_for(InputSpec(224, 224, 3), ("ant", "bee"), FinetuneOptions()).flips
    assert not augmentation_for(InputSpec(224, 224, 3), ("odd", "even"), FinetuneOptions()).flips
    assert depths_of("auto")[-1] == "all"
