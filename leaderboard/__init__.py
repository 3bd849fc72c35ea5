"""Rank what the harness measured, check what others hand in, and exchange records with the Hub.

Reads result records and never runs a model. From `bench` come records, reports and comparisons of them, and the
catalogues of data sets, protocols and metrics; restored images are scored by `python -m bench score`, in a process of
its own. `quality` alone computes metrics, of the page's photographs, which are no results.
"""
