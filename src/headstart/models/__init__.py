"""The saved model: its folder, its predictions, its exports."""

from __future__ import annotations

from headstart.models.export import export_model
from headstart.models.model import Model, open_model
from headstart.models.predict import predict_files

__all__ = ["Model", "export_model", "open_model", "predict_files"]
