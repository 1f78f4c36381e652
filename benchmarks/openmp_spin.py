"""What it costs, and what it saves, that OpenMP threads spin only briefly while they wait.

    python benchmarks/openmp_spin.py

Images a second of a supernet step of 2d_mini_4 (batch 128, one path an image, CPU), alone and beside another process
that keeps one core busy, for several values of GOMP_SPINCOUNT and for one thread. The command sets 3000.
"""

import multiprocessing
import os
import subprocess
import sys
import time

SECONDS = 6.0


def measure() -> None:
    """Print the images a second of this process's settings."""
    import numpy as np
    import torch

    from psvit.supernet.sampling import UniformCells
    from psvit.supernet.supernet import Supernet
    from psvit.zoo import SPACES

    supernet, sampler = Supernet(SPACES["2d_mini_4"]), UniformCells(3, 6)
    optimiser = torch.optim.AdamW(supernet.parameters(), fused=True)
    images = torch.randn(128, 3, 32, 32)

    def step(number: int) -> None:
        paths = sampler.draw(len(images), np.random.default_rng(number))
        optimiser.zero_grad()
        supernet(images, paths).square().mean().backward()
        optimiser.step()

    step(0)  # warms up
    steps, began = 0, time.monotonic()
    while time.monotonic() - began < SECONDS:
        step(steps := steps + 1)
    print(f"{steps * len(images) / (time.monotonic() - began):.0f}")


def keep_busy() -> None:
    while True:
        pass


def main() -> None:
    print(f"{'threads':>8} {'GOMP_SPINCOUNT':>15} {'alone':>8} {'shared':>8}   images a second")
    for threads, spin in (("1", "3000"), ("", ""), ("", "3000"), ("", "0")):
        environment = dict(os.environ)
        environment |= {"OMP_NUM_THREADS": threads} if threads else {}
        environment |= {"GOMP_SPINCOUNT": spin} if spin else {}
        speeds = []
        for shared in (False, True):
            neighbours = [multiprocessing.Process(target=keep_busy) for _ in range((os.cpu_count() or 1) * shared)]
            for neighbour in neighbours:
                neighbour.start()
            command = [sys.executable, __file__, "measure"]
            speeds.append(subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip())
            for neighbour in neighbours:
                neighbour.kill()
        print(f"{threads or 'all':>8} {spin or 'unset':>15} {speeds[0]:>8} {speeds[1]:>8}")


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["measure"] else main()
