"""Make the winner real: train it from scratch, evaluate it."""
