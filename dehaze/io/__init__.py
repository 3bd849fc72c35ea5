"""Photographs and clips, in and out: files, formats, names."""
