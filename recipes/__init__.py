"""One runnable file per experiment.

Threads of OpenMP that wait for one another sleep instead of spinning: on cores that other programs
use too, a thread that spins keeps the one that it waits for from running. The library reads these
settings when torch loads it, and processes that a recipe starts inherit them. What the user has
set stays. See `docs/speed.md`.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")  # GNU's library alone
