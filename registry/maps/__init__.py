"""Positions, clusters and profiles of tasks."""
