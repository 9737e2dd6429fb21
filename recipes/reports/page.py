"""HTML pages from the templates of this folder."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"


def template(name: str, **filters: Callable) -> jinja2.Template:
    """A template that escapes what it is given and refuses what it does not know."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name)


def png(figure: Figure, dpi: int = 150) -> bytes:
    """A figure as the content of a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def inline(kind: str, content: bytes) -> str:
    """An address that holds its content, of a kind such as `image/png`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
