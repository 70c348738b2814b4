"""Drawings become part of the page, so that they take the colours of its theme: `![…](drawings/name.svg)`."""

from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

FOLDER = "drawings/"


class InlineDrawings(SphinxPostTransform):
    """Put the text of an SVG in the place of the image."""

    default_priority = 5  # before images are collected and copied
    formats = ("html",)

    def run(self):
        for image in list(self.document.findall(nodes.image)):
            if image["uri"].startswith(FOLDER):
                text = (Path(self.env.srcdir) / image["uri"]).read_text(encoding="utf-8")
                image.replace_self(nodes.raw("", text, format="html"))


def setup(app):
    app.add_post_transform(InlineDrawings)
    return {"parallel_read_safe": True}
