"""Scores of processed sound, whatever device made it.

What is public is in `__all__`, and is loaded when it is asked for: `evaluation.haspi`.
"""

from icsim import __version__ as __version__
from icsim.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
