"""Logs of a training run: what is written, what a resumed run withdraws, what a failing log may not do."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.errors import MissingExtraError, SettingError
from headstart.networks.logs import registry as training_log
from headstart.networks.logs.jsonlines import JsonLines
from headstart.networks.logs.mlflow import MLflow
from headstart.networks.logs.registry import make_log
from headstart.networks.logs.tensorboard import TensorBoard
from headstart.networks.logs.values import TrainingLog
from headstart.records import Epoch, TrainSettings

NAN = math.nan
has = {
    name: pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("mlflow", "tensorboard", "tensorboardX")
}


def epoch(number: int) -> Epoch:
    return Epoch(number, 1 / number, 0.5, NAN, NAN, 1e-3, 0.25)


def run(log: TrainingLog, first: int, last: int, *, finish: bool = True) -> None:
    log.started({"network": "mlp", "settings": TrainSettings(), "n_images": 100})
    for number in range(first, last + 1):
        log.epoch(epoch(number))
    if finish:
        log.finished({"accuracy": 0.875, "said": "fine"})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=refuse) for line in path.read_text("utf-8").splitlines()]


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def epochs(path: Path) -> list[int]:
    return [line["number"] for line in lines(path) if line["event"] == "epoch"]


# lines


def test_lines_hold_what_was_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    begun = datetime.now(UTC)
    run(JsonLines(path), 1, 2)
    first, *middle, last = lines(path)
    assert [one["event"] for one in (first, *middle, last)] == ["started", "epoch", "epoch", "finished"]
    assert first["settings"]["optimizer"] == "adam" and last["accuracy"] == 0.875
    assert middle[1] | {"time": ""} == {
        "event": "epoch", "time": "", "number": 2, "train_loss": 0.5, "train_accuracy": 0.5, "val_loss": None,
        "val_accuracy": None, "learning_rate": 1e-3, "seconds": 0.25,
    }  # fmt: skip
    told = datetime.fromisoformat(first["time"])
    assert told.utcoffset() is not None and abs((told - begun).total_seconds()) < 60


def test_lines_can_say_anything(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    facts = {
        "inf": math.inf, "array": np.array([1.5, NAN]), "scalar": np.float32(0.5), "path": Path("a"),
        "nest": {"pair": (1, -math.inf)}, "text": "α\nβ", "flag": np.True_, "event": "mine", 3: None,
    }  # fmt: skip
    JsonLines(path).started(facts)
    (line,) = lines(path)
    del line["time"]
    assert line == {
        "event": "started", "inf": None, "array": [1.5, None], "scalar": 0.5, "path": "a",
        "nest": {"pair": [1, None]}, "text": "α\nβ", "flag": True, "3": None,
    }  # fmt: skip


def test_line_is_there_when_the_call_returns(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    program = (
        "import os, sys\nfrom headstart.networks.logs.registry import JsonLines\n"
        "log = JsonLines(sys.argv[1])\nlog.started({'n': 1})\nos._exit(9)"  # as a kill: nothing is flushed
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], timeout=60, check=False)
    assert done.returncode == 9 and lines(path)[0]["n"] == 1


def test_new_run_replaces_old_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    run(JsonLines(path), 1, 3)
    run(JsonLines(path), 1, 1)
    assert epochs(path) == [1] and len(lines(path)) == 3


@pytest.mark.parametrize("resume", [1, 3, 4])
def test_no_epoch_is_there_twice(tmp_path: Path, resume: int) -> None:
    path = tmp_path / "log.jsonl"
    run(JsonLines(path), 1, 3)
    before = path.read_bytes().splitlines()
    run(JsonLines(path, resume_epoch=resume), resume, 5)
    assert epochs(path) == [1, 2, 3, 4, 5]
    assert path.read_bytes().splitlines()[:resume] == before[:resume], "kept lines are kept to the byte"
    assert [line["event"] for line in lines(path)].count("finished") == 1
    assert [line["event"] for line in lines(path)].count("started") == 2


def test_every_place_a_kill_can_cut_is_healed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    run(JsonLines(path), 1, 2, finish=False)
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole) + 1):
        path.write_bytes(whole[:cut])
        log = JsonLines(path, resume_epoch=3)
        log.epoch(epoch(3))
        # cut right before the line's end, it is whole and stays
        assert epochs(path) == ([1, 2, 3] if cut >= len(whole) - 1 else [1, 3]), cut


def test_rubbish_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(
        b'\n7\n[1]\n"text"\n\xff\xfe\n{"event": "epoch"}\n{"event": "epoch", "number": "1"}\n\0\0'
    )
    run(JsonLines(path, resume_epoch=2), 2, 2)
    assert epochs(path) == [2]


def test_resume_without_a_file_starts_one(tmp_path: Path) -> None:
    run(JsonLines(tmp_path / "log.jsonl", resume_epoch=4), 4, 4)
    assert epochs(tmp_path / "log.jsonl") == [4]


# several


def test_names_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"log is 'tensorbord', expected one of .*nearest are tensorboard"):
        make_log(["tensorbord"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow")])
def test_missing_package_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    for module in [one for one in sys.modules if one.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
    with pytest.raises(
        MissingExtraError, match=rf"log '{name}': expected the package {package}.*headstart\[track\]"
    ):
        make_log([name], tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Absent:
    """A finder that hides a package, as if it were not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class Failing:
    """A log that fails from its second epoch on, and counts what it is told."""

    def __init__(self) -> None:
        self.told = 0

    def started(self, facts: Mapping[str, Any]) -> None: ...

    def epoch(self, epoch: Epoch) -> None:
        self.told += 1
        if epoch.number > 1:
            raise OSError(28, "No space left on device\nsecond line")

    def finished(self, facts: Mapping[str, Any]) -> None: ...


def test_failing_log_is_said_once_and_left_out(tmp_path: Path) -> None:
    said: list[str] = []
    failing = Failing()
    lines_log = JsonLines(tmp_path / "log.jsonl")
    log = training_log._CombinedLog({"a": lambda: failing, "b": lambda: lines_log}, said.append)
    run(log, 1, 4)
    assert said == ["log a failed and is disabled (No space left on device)"]
    assert failing.told == 2 and epochs(tmp_path / "log.jsonl") == [1, 2, 3, 4]


def test_log_that_cannot_begin_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    run(make_log([], tmp_path / "file"), 1, 1)
    error = capsys.readouterr().err
    assert error.startswith("log training.jsonl failed") and error.count("\n") == 1


def test_stop_by_hand_goes_through(tmp_path: Path) -> None:
    class Stopped(Failing):
        def epoch(self, epoch: Epoch) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(training_log._CombinedLog({"a": Stopped}, print), 1, 1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_does_not_stop_training(tmp_path: Path) -> None:
    said: list[str] = []
    log = make_log([], tmp_path, remark=said.append)
    (tmp_path / "training.jsonl").unlink()
    (tmp_path / "training.jsonl").symlink_to("/dev/full")
    run(log, 1, 3)
    assert len(said) == 1 and "No space left" in said[0]


def test_import_loads_neither_package() -> None:
    program = "import sys, headstart.networks.logs.registry\nprint(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"mlflow", "tensorboardX", "torch", "google"} & set(done.stdout.split())


# TensorBoard, read by its own reader


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def texts(folder: Path) -> dict[str, str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: reader.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in reader.Tags()["tensors"]
    }


@has["tensorboard"]
@has["tensorboardX"]
def test_tensorboard_reads_what_was_told(tmp_path: Path) -> None:
    run(make_log(["tensorboard"], tmp_path), 1, 3)
    found = curves(tmp_path / "tensorboard")
    assert set(found) == {
        "loss/train", "accuracy/train", "learning_rate", "seconds", "final/accuracy",
    }, "not measured, not drawn"  # fmt: skip
    assert found["loss/train"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert found["final/accuracy"] == [(3, 0.875)]
    said = texts(tmp_path / "tensorboard")
    assert "| settings.optimizer | adam |" in said["started/text_summary"]
    assert "| said | fine |" in said["finished/text_summary"]
    assert epochs(tmp_path / "training.jsonl") == [1, 2, 3]


@has["tensorboard"]
@has["tensorboardX"]
def test_tensorboard_forgets_what_is_computed_again(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path)
    run(first, 1, 5, finish=False)
    del first
    later = TensorBoard(tmp_path, resume_epoch=3)
    for number in (3, 4):
        later.epoch(replace(epoch(number), train_loss=9.0))
    assert len(list(tmp_path.iterdir())) == 2, "files of one second have two names"
    assert curves(tmp_path)["loss/train"] == [(1, 1.0), (2, 0.5), (3, 9.0), (4, 9.0)]
    run(TensorBoard(tmp_path), 1, 1)
    assert curves(tmp_path)["loss/train"] == [(1, 1.0)], "a new run is alone"


@has["tensorboard"]
@has["tensorboardX"]
def test_tensorboard_point_is_there_when_the_call_returns(tmp_path: Path) -> None:
    log = TensorBoard(tmp_path)
    log.epoch(epoch(1))
    assert curves(tmp_path)["loss/train"] == [(1, 1.0)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@has["tensorboardX"]
def test_tensorboard_on_a_full_disk_is_left_out(tmp_path: Path) -> None:
    said: list[str] = []
    log = make_log(["tensorboard"], tmp_path, remark=said.append)
    full = Path("/dev/full").open("wb")  # the log closes it
    assert isinstance(log, training_log._CombinedLog)
    board = log._logs["tensorboard"]
    assert isinstance(board, TensorBoard)
    board._file._writer.close()
    board._file._writer = full
    run(log, 1, 3)
    assert len(said) == 1 and said[0].startswith("log tensorboard failed") and "No space left" in said[0]
    assert epochs(tmp_path / "training.jsonl") == [1, 2, 3]


# MLflow, read by its own client


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that the log sets, put back afterwards."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name in (
        "MLFLOW_DISABLE_TELEMETRY", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT",
        "MLFLOW_ALLOW_FILE_STORE",
    ):  # fmt: skip
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def mlflow_run(folder: Path) -> tuple[Any, dict[str, list[tuple[int, float]]]]:
    """The one run there is, and its metrics."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(folder / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("headstart")
    (found,) = client.search_runs([experiment.experiment_id])
    history = {
        name: [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }
    return found, history


@pytest.mark.slow
@has["mlflow"]
def test_mlflow_reads_what_was_told(tmp_path: Path, no_server: None) -> None:
    run(make_log(["mlflow"], tmp_path, title="digits"), 1, 3)
    found, history = mlflow_run(tmp_path)
    assert found.info.status == "FINISHED" and found.info.run_name == "digits"
    assert found.data.params["settings.optimizer"] == "adam" and found.data.params["network"] == "mlp"
    assert history["train_loss"] == [(1, 1.0), (2, 0.5), (3, 1 / 3)] and "val_loss" not in history
    assert history["final.accuracy"] == [(3, 0.875)] and found.data.tags["final.said"] == "fine"


@has["mlflow"]
def test_mlflow_goes_on_with_the_run(tmp_path: Path, no_server: None) -> None:
    run(MLflow(tmp_path), 1, 3, finish=False)
    run(MLflow(tmp_path, resume_epoch=3), 3, 5)
    found, history = mlflow_run(tmp_path)
    assert [step for step, _ in history["train_loss"]] == [1, 2, 3, 4, 5]
    assert found.info.status == "FINISHED"


@pytest.mark.slow
@has["mlflow"]
@pytest.mark.parametrize("first", ["", "import mlflow; from mlflow.telemetry import client"])
def test_mlflow_is_mute(tmp_path: Path, first: str) -> None:
    """In a process of its own, because MLflow is mute under pytest, and decides when it is imported."""
    program = f"""
{first}
from headstart.networks.logs.mlflow import MLflow
log = MLflow({str(tmp_path)!r})
from mlflow.telemetry import get_telemetry_client
from mlflow.telemetry.utils import is_telemetry_disabled
print(is_telemetry_disabled(), get_telemetry_client())
"""
    known = ("PATH", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")  # MLflow is mute in CI as well
    clean = {name: os.environ[name] for name in known if name in os.environ}
    nowhere = "http://127.0.0.1:9"  # were it to speak, nobody hears it
    clean |= {"HOME": str(tmp_path), "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=clean, timeout=120, check=True
    )
    assert done.stdout.split() == ["True", "None"]
    assert first or not (tmp_path / ".config").exists(), "no number by which this machine is known"


@has["mlflow"]
def test_mlflow_server_that_is_away(tmp_path: Path, no_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nobody answers
    said: list[str] = []
    run(make_log(["mlflow"], tmp_path, remark=said.append), 1, 3)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1", "its own 7 take minutes, each epoch"
    assert len(said) == 1 and said[0].startswith("log mlflow failed") and "\n" not in said[0]
    assert epochs(tmp_path / "training.jsonl") == [1, 2, 3]
