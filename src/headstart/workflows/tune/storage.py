"""Trials of a search in an Optuna study, an SQLite file that lets the search resume."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.errors import SettingError
from headstart.system.optional import require

__all__ = ["AT_ONCE", "NUMBER", "RIGHT", "STARTUP", "finished_trials", "open_storage", "quiet_optuna"]
_STUDY = "headstart"
STARTUP = 5  # trials before the median rule stops any
RIGHT = "right"  # a trial's attribute: which images are predicted correctly; older versions did not record it
NUMBER = "number"  # a trial's attribute: its number in the search; in older files their order is that of the numbers
AT_ONCE = "number of trials at once"  # in the identity of a search; 1 in older files
_SQLITE = b"SQLite format 3\0"


def finished_trials(study: Any) -> dict[int, Any]:
    """Trials that ended, pruned ones included, by number in ascending order."""
    from optuna.trial import TrialState

    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    numbered = {one.user_attrs.get(NUMBER, place): one for place, one in enumerate(found)}
    return dict(sorted(numbered.items()))


@contextmanager
def open_storage(path: Path, identity: Mapping[str, Any]) -> Iterator[Any]:
    """The study in a file, new or resumed."""
    optuna = _optuna()
    if path.exists() and (not path.is_file() or (path.stat().st_size and not _is_sqlite(path))):
        raise SettingError(
            f"{str(path)!r} is not an SQLite file, expected one of an earlier search or none; move it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    from sqlalchemy.engine import URL  # as optuna does

    address = URL.create("sqlite", database=str(path.absolute())).render_as_string()
    storage = optuna.storages.RDBStorage(address)
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=_STUDY,
            direction="maximize",
            load_if_exists=True,
        )
        known = study.user_attrs.get("identity")
        if known is None:
            study.set_user_attr("identity", identity)
        _check_same(path, known or identity, identity)
        for stale in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            study.tell(stale.number, state=optuna.trial.TrialState.FAIL)  # of a run that was killed
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _check_same(path: Path, known: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    known = {AT_ONCE: 1, **known}
    other = [name for name in wanted if known.get(name) != wanted[name]]
    if other:
        raise SettingError(
            f"the search in {str(path)!r} was started with another {' and another '.join(other)}, expected the "
            "same to continue; choose another folder, or remove the file to start again"
        )


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _optuna() -> Any:
    return require("optuna", extra="tune", for_="tuning the training of a network")


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna's logs and its warnings about experimental features, and restore them after."""
    optuna = _optuna()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
