"""Logs of a training run: JSON lines, TensorBoard, MLflow."""
