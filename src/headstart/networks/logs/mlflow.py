"""A training log in MLflow."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from time import time
from typing import Any

from headstart.networks.logs.values import MEASURES, cell_text, flattened, key_text, log_value, number_items
from headstart.records import Epoch
from headstart.system.files import write_atomic
from headstart.system.optional import require

__all__ = ["MLflow", "mlflow_module"]


class MLflow:
    """A run of MLflow: facts as parameters, measures of epochs as metrics.

    Written to ``mlruns`` in the folder unless ``MLFLOW_TRACKING_URI`` is set; ``MLFLOW_EXPERIMENT_NAME`` overrides
    ``experiment``. The run's id is kept in ``mlflow.json``, so that a resumed training continues the same run.
    MLflow cannot delete a metric: epochs that are computed again after ``resume_epoch`` are not written twice.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        title: str = "training",
        experiment: str = "headstart",
        resume_epoch: int | None = None,
    ) -> None:
        mlflow_module()
        place = Path(folder)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (place / "mlruns").absolute().as_uri()
        self._client = import_module("mlflow.tracking").MlflowClient(tracking_uri=uri)
        self._entities = import_module("mlflow.entities")
        known = place / "mlflow.json"
        self._run, self._written = "", 0
        if resume_epoch is not None and known.exists():
            self._run = str(json.loads(known.read_text(encoding="utf-8"))["run"])
            self._client.update_run(self._run, status="RUNNING")
            self._written = self._newest()
        else:
            named = os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment
            self._run = self._client.create_run(self._experiment(named), run_name=title).info.run_id
            write_atomic(known, json.dumps({"run": self._run}))

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _newest(self) -> int:
        """The last epoch that the run has, 0 for none."""
        metrics = self._client.get_metric_history(self._run, "train_loss")
        return max((int(one.step) for one in metrics), default=0)

    def started(self, facts: Mapping[str, Any]) -> None:
        """Record the facts as parameters; parameters that the run already has are not changed."""
        old = self._client.get_run(self._run).data.params
        metrics = {key_text(key): cell_text(value) or "-" for key, value in flattened(log_value(facts))}
        new = [self._entities.Param(key, value) for key, value in metrics.items() if key not in old]
        for start in range(0, len(new), 100):  # a server's limit
            self._client.log_batch(self._run, params=new[start : start + 100])

    def epoch(self, epoch: Epoch) -> None:
        """Record the measures, unless the run has them."""
        if epoch.number > self._written:
            self._record({name: float(getattr(epoch, name)) for name in MEASURES}, epoch.number)
            self._written = epoch.number

    def finished(self, facts: Mapping[str, Any]) -> None:
        """Record numbers as metrics, the rest as tags, and end the run."""
        numbers = dict(number_items(facts))
        self._record({f"final.{key_text(key)}": value for key, value in numbers.items()}, self._written)
        for key, value in flattened(log_value(facts)):
            if key not in numbers:
                self._client.set_tag(self._run, f"final.{key_text(key)}", cell_text(value))
        self._client.set_terminated(self._run, status="FINISHED")

    def _record(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time())
        metric = self._entities.Metric
        metrics = [metric(key, value, now, step) for key, value in values.items() if math.isfinite(value)]
        self._client.log_batch(self._run, metrics=metrics)


def mlflow_module() -> None:
    """Import mlflow with telemetry off and short timeouts."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its default of 7 takes minutes per epoch
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else it requires a database
    require("mlflow", extra="track", for_="log 'mlflow'")
    import_module("mlflow.telemetry").set_telemetry_client()  # in case it was imported before
