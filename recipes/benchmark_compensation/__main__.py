"""`python -m recipes.benchmark_compensation --config FILE.yaml`."""

from recipes.benchmark_compensation import Config, benchmark
from recipes.benchmark_compensation.tables import restoration
from recipes.state import run

if __name__ == "__main__":
    print(restoration(run(benchmark, Config)).markdown())
