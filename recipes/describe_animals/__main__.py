"""`python -m recipes.describe_animals`."""

from recipes.describe_animals import Config, describe
from recipes.state import run

if __name__ == "__main__":
    print(run(describe, Config))
