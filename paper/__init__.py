"""The paper (arXiv 2108.03428): its figures, its tables beside what is counted and measured here, its ablations."""
