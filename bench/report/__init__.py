"""What records say: tables as text, figures, and pages that open offline. Nothing here runs a model."""
