"""Preparation of an image inside the graph: resizing, cropping and ink normalisation as ONNX operations."""
