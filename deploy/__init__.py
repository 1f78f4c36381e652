"""Trained networks outside: predictions for any pictures, and files for other runtimes."""
