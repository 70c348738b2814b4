"""A page and a notebook for every guide: `guides/*.py`, plain programs in the percent format of Jupytext.

Both are written to `docs/guides/` before Sphinx reads its sources. Guides that are named in `guides_run` are run, cell by
cell, and what a cell prints and draws stands below it.
"""

import contextlib
import io
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import jupytext
import keras
from sphinx.errors import ConfigError
from sphinx.util import logging as sphinx_logging

GUIDES = Path(__file__).parents[2] / "guides"
FOLDER = "guides"
DOWNLOADS = "```{{admonition}} To run it yourself\n:class: tip\n\n{links}\n```"

log = sphinx_logging.getLogger(__name__)


def page(name, notebook, outputs):
    """The guide in Markdown, `outputs` below its cells."""
    cells = [markdown(cell, output) for cell, output in zip(notebook.cells, outputs, strict=True)]
    links = f"Download it as a program, {{download}}`{name}.py`, or as a notebook, {{download}}`{name}.ipynb`."
    links += " Keras runs on TensorFlow, unless the environment variable `KERAS_BACKEND` names another backend."
    if "import pretrained_networks" in "".join(cells):
        links += " It reads {download}`pretrained_networks.py`, which belongs beside it."
    title, _, rest = "\n\n".join(cells).partition("\n")
    return f"{title}\n\n{DOWNLOADS.format(links=links)}\n{rest}\n"


def markdown(cell, output):
    if cell.cell_type == "markdown":
        # Links start from docs/guides/ here, and lead to the pages of other guides.
        return re.sub(r"\]\((\w+)\.py\)", r"](\1.md)", cell.source.replace("](../docs/", "](../"))
    return f"```python\n{cell.source.strip()}\n```\n\n{output}".rstrip()


def run(notebook, name, folder):
    """What each cell prints and draws, in Markdown."""
    names, outputs, pictures = {"__name__": "__main__"}, [], 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            outputs.append("")
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(cell.source, f"{name}.py", "exec"), names)
        parts = (
            [f"```{{code-block}} text\n:class: output\n\n{printed.getvalue().rstrip()}\n```"]
            if printed.getvalue()
            else []
        )
        for figure in [*open_figures(), *shown(cell.source, names)]:
            pictures += 1
            file = folder / f"{name}_{pictures}.png"
            figure.savefig(file, dpi=110, facecolor="white", bbox_inches="tight")
            parts.append(f"[![{figure.get_label()}]({file.name})]({file.name})")  # a tap enlarges it
        outputs.append("\n\n".join(parts))
    return outputs


def open_figures():
    """The figures that pyplot has open, which are then closed."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    pyplot = sys.modules["matplotlib.pyplot"]
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")
    return figures


def shown(source, names):
    """The figure that a cell ends with, if it ends with the name of one: a notebook shows it."""
    last = names.get(source.strip().splitlines()[-1])
    return [last] if hasattr(last, "savefig") else []


@contextlib.contextmanager
def somewhere_else():
    """Run in an empty folder, where guides may leave what they like, and let them find each other."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, str(GUIDES))
        os.chdir(folder)
        logging.disable(logging.WARNING)  # what frameworks have to say about themselves
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            os.chdir(before)
            sys.path.remove(str(GUIDES))


def write_all(app):
    """Write `docs/guides/` anew."""
    folder = Path(app.srcdir) / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    guides = sorted(GUIDES.glob("*.py"))
    unknown = set(filter(None, app.config.guides_run)) - {guide.stem for guide in guides}
    if unknown:
        raise ConfigError(f"`guides_run` names guides that do not exist: {', '.join(sorted(unknown))}")
    for guide in guides:
        notebook = jupytext.read(guide)
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        outputs = [""] * len(notebook.cells)
        if guide.stem in app.config.guides_run:
            log.info("running %s", guide.name)
            keras.utils.clear_session(free_memory=False)  # names are counted from one again
            with somewhere_else():
                outputs = run(notebook, guide.stem, folder)
        shutil.copy(guide, folder)
        jupytext.write(notebook, folder / f"{guide.stem}.ipynb")
        (folder / f"{guide.stem}.md").write_text(page(guide.stem, notebook, outputs), encoding="utf-8")


def setup(app):
    app.add_config_value("guides_run", [], "env", list)
    app.connect("builder-inited", write_all)
    return {"parallel_read_safe": True}
