"""Filters of images: pure functions on tensors [B,C,H,W]."""
