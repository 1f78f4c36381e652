"""The training engine: loop, optimiser, checkpoints, processes, devices."""
