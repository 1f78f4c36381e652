"""Trained networks outside: predictions for pictures of the user's."""
