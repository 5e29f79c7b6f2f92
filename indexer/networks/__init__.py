"""Pretrained networks by name."""
