"""A training that is monitored, in a process of its own: says after each measurement how far it is.

python -m tests.monitoring.killed OUTPUT STEPS
"""

from __future__ import annotations

import sys
import time

from landscape.monitoring import Monitor
from tests.monitoring.support import blobs, plain_net, train


def main(output: str, steps: int) -> None:
    x, y = blobs()
    data, model = (x.double(), y), plain_net()
    monitor = Monitor(model, "cross_entropy", data, output=output, every=1, budget=None, seed=0)
    monitor._clock.allows_writing = lambda: monitor.steps % 20 == 1  # whatever time it takes here
    for step in range(steps):
        train(model, data, 1, monitor, lr=0.3)
        print(step, flush=True)
    print("over", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
