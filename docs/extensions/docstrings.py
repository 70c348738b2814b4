"""Docstrings as they are written here: code in single backticks, formulas in plain characters.

A name in single backticks becomes a link if the reference has a place for it, and code if not.
"""

import re

from docutils import nodes
from sphinx.roles import XRefRole

import keras_adjoint

NAMES = {f"{prefix}{name}": name for name in keras_adjoint.__all__ for prefix in ("", "ka.", "keras_adjoint.")}


class Code(XRefRole):
    """The default role."""

    def run(self):
        name = NAMES.get(self.target)
        if name is None:
            return [nodes.literal(self.rawtext, self.text)], []
        self.refdomain, self.reftype, self.classes = "py", "obj", ["xref", "py", "py-obj"]
        self.target, self.has_explicit_title = f"keras_adjoint.{name}", True
        return self.create_xref_node()


def escape_bars(app, what, name, obj, options, lines):
    """A bar is the absolute value of something, and no substitution."""
    for number, line in enumerate(lines):
        lines[number] = re.sub(r"(?<![`\\])\|", r"\|", line)


def setup(app):
    app.add_role("code-or-link", Code())
    app.config.default_role = "code-or-link"
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True}
