"""Trainable networks: specs in architectures.py, one loop in training.py, one module per engine."""
