"""A differentiable model of the auditory midbrain for every kind of hearing loss.

What is public is in `__all__`, and is loaded when it is asked for: `icsim.ResponseLoss`.
"""

from icsim.lazy import lazily

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazily(__name__, __file__)
