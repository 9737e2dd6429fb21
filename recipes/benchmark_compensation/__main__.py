"""`python -m recipes.benchmark_compensation --config FILE.yaml`."""

import json

from recipes.benchmark_compensation import Config, benchmark
from recipes.state import run

if __name__ == "__main__":
    print(json.dumps(run(benchmark, Config)["restoration"], indent=2))
