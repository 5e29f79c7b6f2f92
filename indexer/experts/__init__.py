"""Experts measured on a sample of data."""
