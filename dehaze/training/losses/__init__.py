"""Losses beyond L1, and the frozen features that they compare images by."""
