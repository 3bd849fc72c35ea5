"""API (arXiv 2601.01992): density-aware haze removal."""
