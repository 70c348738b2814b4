"""Pages that read well in the repository, too, where Markdown has no directives and the guides are in another folder.

A directive stands in an HTML comment, which the repository does not show. A link to a guide leads to the program, and a link to
the source of a public name, to its place in the reference.
"""

import re
from pathlib import PurePosixPath

import keras_adjoint

COMMENT = re.compile(r"^<!--(\s*)((?:`{3}|:{3}|{{).*?)(\s*)-->$", re.DOTALL | re.MULTILINE)
SOURCE = re.compile(rf"\[`({'|'.join(keras_adjoint.__all__)})`\]\((?:\.\./)+src/[\w/]+\.py\)")


def for_site(text, folder):
    """The text of a page as Sphinx reads it.

    Args:
        text: The text.
        folder: Where the page is below the folder of the documentation: `how`, or nothing.
    """
    up = "../" * len(PurePosixPath(folder).parts)
    text = COMMENT.sub(r"\1\2\3", text)
    text = SOURCE.sub(r"{py:obj}`~keras_adjoint.\1`", text)
    return text.replace(f"](../{up}guides/", f"]({up}guides/")


def read_for_site(app, page, source):
    source[0] = for_site(source[0], page.rpartition("/")[0])


def setup(app):
    app.connect("source-read", read_for_site)
    return {"parallel_read_safe": True}
