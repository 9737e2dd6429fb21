"""What `import icsim`, `compensation` and `evaluation` show."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import compensation
import evaluation
import icsim

PACKAGES = ("icsim", "compensation", "evaluation")
EXTRAS = ("zarr", "ot", "botorch", "espeakng_loader", "torchaudio", "recipes", "pystoi", "pandas")

NEEDED_AT_ONCE = """
import json, sys
{code}
print(json.dumps([name for name in {names!r} if name in sys.modules]))
"""


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Which modules some code has loaded, in an interpreter of its own."""
    program = NEEDED_AT_ONCE.format(code=code, names=names)
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, cwd=root, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there_and_has_a_docstring(name):
    package = importlib.import_module(name)
    for public in package.__all__:
        value = getattr(package, public)
        assert isinstance(value, str | float) or value.__doc__, public
        assert public == "__version__" or value is getattr(package, public)
    assert set(package.__all__) <= set(dir(package))


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(AttributeError, match=r"icsim has no Respons; it has .*ResponseLoss"):
        _ = icsim.Respons


def test_there_is_one_version():
    assert icsim.__version__ == compensation.__version__ == evaluation.__version__


def test_the_packages_load_nothing_until_it_is_asked_for():
    code = "import icsim, compensation, evaluation"
    assert loaded(code, ("torch", "numpy", "scipy", "numba", *EXTRAS)) == []


def test_the_core_needs_no_extra():
    models = "import icsim.loss, icsim.models.load, icsim.models.check, icsim.metrics, icsim.dsp"
    scores = "from evaluation import haspi, hasqi, estoi, pesq"
    aids = (
        "from compensation import Masks, LearnedFilters, AuditoryModel, Stream, load_aid, Mixtures"
    )
    assert loaded(f"{models}\n{scores}\n{aids}", EXTRAS) == []
