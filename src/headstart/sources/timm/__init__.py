"""Pretrained networks of timm as sources."""
