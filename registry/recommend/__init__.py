"""Ranked experts from past results, distances and scores."""
