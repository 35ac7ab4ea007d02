"""Documents that go with a released model, from the files in ``templates``."""

from __future__ import annotations

import functools
import re
from typing import Any

from jinja2 import Environment, PackageLoader, Undefined

from ..errors import printable

UNSAFE = re.compile(r"[<>\[\]|`\x00-\x1f]")


def render(template: str, /, **values: Any) -> str:
    """A file of ``templates``, filled in; in Markdown every value is written as harmless words."""
    return _environment(template.endswith(".md")).get_template(template).render(values)


def harmless(value: object) -> str:
    """A value from a file as harmless words of Markdown."""
    return printable(UNSAFE.sub(" ", str(value)).strip())[:300]


@functools.cache
def _environment(markdown: bool) -> Environment:
    def written(value: object) -> object:
        if not markdown:
            return value
        return "not known" if value in (None, Undefined()) else harmless(value)

    return Environment(
        loader=PackageLoader("radiffuse.release"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=written,
    )
