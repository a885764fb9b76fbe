"""A training that is interrupted goes on to the same bits: killed, asked to stop, by either engine."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command import Run, contents
from headstart.data.dataset import Dataset
from headstart.data.readers.load import from_arrays
from headstart.errors import SettingError
from headstart.interfaces.python import transfer
from headstart.models.model import Model, open_model
from headstart.networks.specs import ARCHITECTURES
from headstart.system.progress import Remarks
from headstart.workflows.train import monitor
from headstart.workflows.train.request import TrainingFiles, TrainingRequest, checkpoints_of
from headstart.workflows.train.run import Trained, run_training

# dropout, patience and a schedule: much to remember
WORDS = (
    *("digits", "--network", "mlp-wide", "--engine", "scratch", "--epochs", "30", "--patience", "25"),
    *("--schedule", "one-cycle", "--learning-rate", "auto", "--checkpoint-every", "0.05s"),
)
SCRATCH = TrainingRequest(
    "mlp-wide", "scratch", settings={"epochs": 3, "schedule": "one-cycle", "patience": 2, "prune": 0.3}
)
TORCH = TrainingRequest(
    "best", augment="handwriting", settings={"epochs": 3, "patience": 3, "mixup": 0.2, "ema": 0.9}
)


@pytest.fixture(scope="module")
def few(digits: Dataset) -> Dataset:
    """Enough to hold some out."""
    return digits.subset(range(600))


class Stop:
    """Asks to stop after so many steps, as Ctrl-C does."""

    def __init__(self, n_steps: int, number: int = signal.SIGINT) -> None:
        self.left, self.number, self.remarks = n_steps, number, list[str]()

    def step(self, task: str, done: int, total: int, note: str = "") -> None:
        self.left -= task.startswith("train")
        if self.left == 0:
            signal.raise_signal(self.number)

    def remark(self, text: str) -> None:
        self.remarks.append(text)


def go_on(
    dataset: Dataset, wanted: TrainingRequest, output: Path, stops: tuple[int, ...]
) -> tuple[Trained, Stop]:
    """The training, interrupted after so many steps of each part."""
    for n_steps in stops:
        with pytest.raises(KeyboardInterrupt):
            run_training(
                dataset,
                wanted,
                TrainingFiles(output, checkpoints_of(output).exists()),
                progress=Stop(n_steps),
            )
        assert any(checkpoints_of(output).iterdir()) and not output.exists()
    said = Stop(0)
    return run_training(dataset, wanted, TrainingFiles(output, resume=True), progress=said), said


def weights(output: Path) -> bytes:
    return (output / "weights.safetensors").read_bytes()


def facts(output: Path) -> dict[str, Any]:
    """The manifest, but for times and what depends on them."""
    told = json.loads((output / "manifest.json").read_text())
    return {
        name: value for name, value in told.items() if name not in ("timing", "files", "report", "checksum")
    }


def log_lines(output: Path) -> list[dict[str, Any]]:
    lines = (output.with_name(f"{output.name}.log") / "training.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "wanted", [SCRATCH, pytest.param(TORCH, marks=pytest.mark.slow)], ids=["scratch", "torch"]
)
def test_both_engines_go_on_to_the_same_bits(few: Dataset, tmp_path: Path, wanted: TrainingRequest) -> None:
    whole = run_training(few, wanted, TrainingFiles(tmp_path / "whole"))
    parted, said = go_on(few, wanted, tmp_path / "parted", (2, 3))
    assert not said.remarks
    assert weights(tmp_path / "whole") == weights(tmp_path / "parted")
    assert facts(tmp_path / "whole") == facts(tmp_path / "parted")
    assert whole.learned.curve == parted.learned.curve
    assert whole.result.evaluations == parted.result.evaluations
    assert not checkpoints_of(tmp_path / "parted").exists()
    epochs = [line["number"] for line in log_lines(tmp_path / "parted") if line["event"] == "epoch"]
    assert epochs == [1, 2, 3]
    assert [line["event"] for line in log_lines(tmp_path / "parted")].count("started") == 3


@pytest.mark.slow
def test_weights_that_differ_would_be_seen(few: Dataset, tmp_path: Path) -> None:
    for seed in (0, 1):
        wanted = replace(SCRATCH, settings={**SCRATCH.settings, "seed": seed})
        run_training(few, wanted, TrainingFiles(tmp_path / str(seed)))
    assert weights(tmp_path / "0") != weights(tmp_path / "1")
    assert facts(tmp_path / "0") != facts(tmp_path / "1")


@pytest.mark.slow
def test_a_rate_once_found_is_not_searched_again(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = replace(SCRATCH, settings={**SCRATCH.settings, "learning_rate": "auto"})
    run_training(few, wanted, TrainingFiles(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_training(few, wanted, TrainingFiles(tmp_path / "parted"), progress=Stop(3))
    monkeypatch.setattr(monitor, "find_rate", lambda *_, **__: pytest.fail("searched again"))
    go_on(few, wanted, tmp_path / "parted", ())
    assert weights(tmp_path / "whole") == weights(tmp_path / "parted")
    assert facts(tmp_path / "whole") == facts(tmp_path / "parted")

    def rates(name: str) -> str:
        page = (tmp_path / name / "report.html").read_text()
        return page[page.index('<section id="figures">') : page.index('<section id="training">')]

    assert rates("whole") == rates("parted") and "suggested" in rates("whole")


def test_a_flat_loss_is_not_tested_again(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = from_arrays(np.random.default_rng(0).integers(0, 2, (600, 8, 8)).astype(np.uint8), few.labels)
    wanted = replace(SCRATCH, settings={**SCRATCH.settings, "learning_rate": "auto"})
    run_training(data, wanted, TrainingFiles(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_training(data, wanted, TrainingFiles(tmp_path / "parted"), progress=Stop(3))
    monkeypatch.setattr(monitor, "find_rate", lambda *_, **__: pytest.fail("searched again"))
    _, said = go_on(data, wanted, tmp_path / "parted", ())
    assert weights(tmp_path / "whole") == weights(tmp_path / "parted")
    assert any("no learning rate was suggested" in one for one in said.remarks)


def test_what_lies_there_is_neither_lost_nor_mistaken(few: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "m"
    with pytest.raises(KeyboardInterrupt):
        run_training(few, SCRATCH, TrainingFiles(output), progress=Stop(2))
    before = contents(checkpoints_of(output))
    with pytest.raises(SettingError, match="holds checkpoints of an interrupted run, expected --resume"):
        run_training(few, SCRATCH, TrainingFiles(output))
    others = {
        "settings.batch_size": (few, replace(SCRATCH, settings={**SCRATCH.settings, "batch_size": 64})),
        "settings.learning_rate": (
            few,
            replace(SCRATCH, settings={**SCRATCH.settings, "learning_rate": "auto"}),
        ),
        "network": (few, replace(SCRATCH, network="mlp")),
        "augmentation": (few, replace(SCRATCH, augment="handwriting")),
        "data": (few.subset(range(500)), SCRATCH),
    }
    for name, (dataset, wanted) in others.items():
        with pytest.raises(SettingError, match=rf"of another run \({name}") as told:
            run_training(dataset, wanted, TrainingFiles(output, resume=True))
        assert "expected the same command" in str(told.value)
    assert {name: one for name, one in contents(checkpoints_of(output)).items() if name != ".lock"} == before


def test_a_network_that_was_rebuilt_meanwhile_is_another(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_training(few, SCRATCH, TrainingFiles(tmp_path / "m"), progress=Stop(2))
    monkeypatch.setitem(ARCHITECTURES, "mlp-wide", ARCHITECTURES["mlp"])
    with pytest.raises(SettingError, match=r"of another run \(spec"):
        run_training(few, SCRATCH, TrainingFiles(tmp_path / "m", resume=True))


def test_another_number_of_threads_is_remarked_on(
    few: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_training(few, SCRATCH, TrainingFiles(tmp_path / "m"), progress=Stop(2))
    n_threads = monitor._n_threads()
    monkeypatch.setattr(monitor, "_n_threads", lambda: n_threads + 3)
    _, said = go_on(few, SCRATCH, tmp_path / "m", ())
    assert len(said.remarks) == 1
    assert f"threads {n_threads} before, {n_threads + 3} now" in said.remarks[0]


def test_nothing_to_go_on_with_is_said(few: Dataset, tmp_path: Path, capsys: Any) -> None:
    run_training(few, SCRATCH, TrainingFiles(tmp_path / "m", resume=True), progress=Remarks())
    assert "no checkpoint" in capsys.readouterr().err
    assert open_model(tmp_path / "m").classes == few.classes


@pytest.mark.parametrize("rate", [0.001, "auto"])
def test_a_finished_run_is_left_as_it_is(few: Dataset, tmp_path: Path, rate: Any) -> None:
    """Trained again it would be another model where the machine, or a number of threads, is another."""
    wanted, output = replace(SCRATCH, settings={**SCRATCH.settings, "learning_rate": rate}), tmp_path / "m"
    done = run_training(few, wanted, TrainingFiles(output))
    before, log = contents(output), log_lines(output)
    again = run_training(few, wanted, TrainingFiles(output, resume=True))
    assert isinstance(again, Model) and again.manifest.scores == done.learned.model.manifest.scores
    assert contents(output) == before and log_lines(output) == log
    run_training(few, wanted, TrainingFiles(output))
    assert contents(output)["manifest.json"] != before["manifest.json"], "without resume it is replaced"


def test_a_finished_run_of_another_command_is_not_replaced(few: Dataset, tmp_path: Path) -> None:
    output = tmp_path / "m"
    run_training(few, SCRATCH, TrainingFiles(output))
    before = contents(output)
    others = {
        "settings.batch_size": (few, replace(SCRATCH, settings={**SCRATCH.settings, "batch_size": 64})),
        "settings.learning_rate": (
            few,
            replace(SCRATCH, settings={**SCRATCH.settings, "learning_rate": "auto"}),
        ),
        "network, spec": (few, replace(SCRATCH, network="mlp")),
        "augmentation": (few, replace(SCRATCH, augment="handwriting")),
        "data": (few.subset(range(500)), SCRATCH),
    }
    for name, (dataset, wanted) in others.items():
        with pytest.raises(SettingError, match=rf"finished model of another run \(other {name}\)"):
            run_training(dataset, wanted, TrainingFiles(output, resume=True))
    assert contents(output) == before
    transfer("pixels", few, head="ridge").save(output)
    with pytest.raises(SettingError, match="is a model without a note of the run that made it"):
        run_training(few, SCRATCH, TrainingFiles(output, resume=True))


def test_the_command_says_that_a_run_is_finished(run: Run, desk: Path) -> None:
    words = ("train", "digits", "-o", "m", "--network", "mlp", "--engine", "scratch", "--epochs", "1")
    assert run(*words).code == 0
    before = contents(desk / "m")
    said = run(*words, "--resume")
    assert said.code == 0 and said.out.startswith("m: this run was finished before; its model is unchanged")
    assert len(said.out.splitlines()) == 1
    found = json.loads(run(*words, "--resume", "--json").out)
    assert found["already_finished"] and 0 < found["scores"]["val_accuracy"] <= 1
    assert contents(desk / "m") == before


def test_stopping_in_the_last_step_finishes(few: Dataset, tmp_path: Path) -> None:
    """Nothing is left to learn then, and the model is all that is wanted."""
    n_steps = 3 * len(range(0, 540, 128))
    run_training(
        few, replace(SCRATCH, settings={"epochs": 3}), TrainingFiles(tmp_path / "m"), progress=Stop(n_steps)
    )
    assert open_model(tmp_path / "m").classes == few.classes and not checkpoints_of(tmp_path / "m").exists()


# --- real processes


def begun(output: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headstart", "train", *WORDS, "-o", str(output), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell starts in the background is deaf to Ctrl-C, and so are its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )


def wait_for_checkpoint(process: subprocess.Popen[str], output: Path, after: str = "") -> None:
    """Until there is one newer than ``after``."""
    limit = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < limit:
        if newest(output) > after:
            return
        time.sleep(0.002)


def newest(output: Path) -> str:
    return max((one.name for one in checkpoints_of(output).glob("step-*")), default="")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What nobody interrupted."""
    output = tmp_path_factory.mktemp("resume") / "whole"
    process = begun(output)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "Report: " in out and "Log: " in out
    return output


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    output, rng, seen = tmp_path / "m", random.Random(os.urandom(8)), []
    for number in range(3):
        process = begun(output, *(["--resume"] if number else []))
        wait_for_checkpoint(process, output, newest(output))
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        seen.append(newest(output))
        assert not output.exists() or open_model(output)
    assert seen[0]
    process = begun(output, "--resume", "--json")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert weights(output) == weights(whole) and facts(output) == facts(whole)
    curve = json.loads(out)["result"]["curves"][0]
    epochs = [line["number"] for line in log_lines(output) if line["event"] == "epoch"]
    assert epochs == curve["steps"] == list(range(1, len(epochs) + 1))
    assert not checkpoints_of(output).exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_asked_to_stop_it_keeps_a_checkpoint_and_says_how_to_go_on(
    whole: Path, tmp_path: Path, number: int
) -> None:
    output = tmp_path / "m"
    process = begun(output)
    wait_for_checkpoint(process, output)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "headstart: interrupted; continue with the same command and --resume"
    assert "Traceback" not in err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.checkpoints", "m.log"]
    process = begun(output, "--resume")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert weights(output) == weights(whole)


def test_the_command_refuses_to_begin_over_an_interrupted_run(run: Run, desk: Path) -> None:
    words = ("train", "digits:0-1", "-o", "m", "--network", "mlp", "--engine", "scratch")
    (desk / "m.checkpoints").mkdir()
    (desk / "m.checkpoints" / "step-000000007.safetensors").write_bytes(b"half")
    said = run(*words)
    assert said.code == 1 and "expected --resume to continue" in said.err
    said = run(*words, "--resume")
    assert said.code == 1 and "all damaged" in said.err
