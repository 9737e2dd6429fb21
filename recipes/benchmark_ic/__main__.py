"""`python -m recipes.benchmark_ic`."""

import json

from recipes.benchmark_ic import Config, benchmark
from recipes.state import run

if __name__ == "__main__":  # not in the processes that it starts
    print(json.dumps(run(benchmark, Config), indent=2))
