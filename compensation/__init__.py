"""Hearing aids that are networks, what they are trained on, and what they are compared with.

What is public is in `__all__`, and is loaded when it is asked for: `compensation.Masks`.
"""

from icsim import __version__ as __version__
from icsim.lazy import lazily

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
