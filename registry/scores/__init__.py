"""Transferability scores of features: how well a head on them would do, without training one."""
