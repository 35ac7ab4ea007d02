"""How Sphinx builds the documents: ``make docs`` writes them to build/docs; every warning is an error.

The pages are the Markdown files of this folder. The API reference is made from signatures and docstrings.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from sphinx.domains.python import PythonDomain

ROOT = Path(__file__).resolve().parents[1]
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)

project = "radiffuse"
author = "The radiffuse developers"
copyright = "the radiffuse developers, Apache-2.0"
release = VERSION.findall((ROOT / "src/radiffuse/__init__.py").read_text(encoding="utf-8"))[0]
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"radiffuse {release}"
html_static_path = ["_static"]
html_css_files = ["radiffuse.css"]
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# Paths, options and names are not prose: no curly quotes, no long dashes for --.
smartquotes = False
# An indented block is a shell line or a listing; guessing its language would only warn.
highlight_language = "none"

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_preserve_defaults = True
autodoc_use_type_comments = False  # there are none, and looking for them takes its time
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

REPOSITORY = "https://github.com/radiffuse/radiffuse/blob/main/"

OPTIONAL = (
    "SimpleITK", "dask", "distributed", "highdicom", "itk", "mlflow", "onnx", "onnxruntime", "shtab", "triton", "wandb",
    "zarr",
)  # fmt: skip
"""Packages of extras, and of a GPU: where one is not installed, its name alone stands in for it."""
autodoc_mock_imports = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]


def escape(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep the stars of shapes such as (B, C, *S), and bars such as |P|, from being taken for markup."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
        lines[i] = "``".join(parts)


def lead_out(app: Any, name: str, source: list[str]) -> None:
    """Links to files outside of this folder lead to the repository."""
    source[0] = source[0].replace("](../../", f"]({REPOSITORY}")


def own_branch(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """The side bar opens only the branch that a page is in: all of them on each page would be most of the build."""
    if (whole := context.get("toctree")) is not None:
        context["toctree"] = lambda **wishes: whole(**wishes | {"collapse": True})


class Python(PythonDomain):
    """The names of annotations that are not ours, such as int, are not compared with every name of the package."""

    def find_obj(self, env: Any, modname: str, classname: str, name: str, *more: Any) -> Any:
        """Whatever is found ends in the last part of the name."""
        if getattr(self, "counted", None) != len(self.objects):
            self.counted = len(self.objects)
            self.ends = {known.rpartition(".")[2] for known in self.objects}
        if name.removesuffix("()").rpartition(".")[2] not in self.ends:
            return []
        return super().find_obj(env, modname, classname, name, *more)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_domain(Python, override=True)
    app.connect("html-page-context", own_branch, priority=400)  # before furo
    app.connect("source-read", lead_out)
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
