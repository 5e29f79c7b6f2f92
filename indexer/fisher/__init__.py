"""Exact squared per-sample gradients: the Fisher information of a probe's weights."""
