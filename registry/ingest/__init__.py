"""The one door to the indexer: data becomes records, experts are measured."""
