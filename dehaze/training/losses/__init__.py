"""Losses beyond L1, and the frozen feature backbones that they compare images with."""
