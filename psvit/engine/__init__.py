"""The training engine: loop, optimiser, checkpoints, run folders, random streams, processes."""
