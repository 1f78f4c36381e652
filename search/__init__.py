"""Find the best architecture within a budget by scores of inherited weights."""
