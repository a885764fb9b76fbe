"""Logs of a training: JSON lines, TensorBoard, MLflow."""
