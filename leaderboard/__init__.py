"""Rank what the harness measured. Reads result records and never runs a model."""
