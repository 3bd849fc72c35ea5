"""One recipe file per model."""
