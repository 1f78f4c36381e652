"""Datasets, their splits, and how images become batches."""
