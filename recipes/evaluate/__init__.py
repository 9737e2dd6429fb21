"""Score sounds that any device made, beside the clean ones.

`python -m recipes.evaluate --clean FOLDER --processed FOLDER`; what the scores mean, the formats
and the exit codes are in `docs/evaluation.md`.

Run the same command again to go on: a file that was scored is scored anew only if it, or what
belongs to it, has changed.
"""

from recipes.evaluate.config import Config

__all__ = ["Config"]
