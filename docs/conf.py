"""How Sphinx builds the site: `make docs`."""

import os
import sys
import tomllib
from pathlib import Path

import yaml
from docutils import nodes
from rich.default_styles import DEFAULT_STYLES
from rich.style import Style
from sphinx.addnodes import download_reference

DOCS, ROOT = Path(__file__).parent, Path(__file__).parents[1]
GUIDES, FOLDER = ROOT / "guides", "guides"
KERNEL = """# ---
# jupyter:
#   kernelspec: {name: python3, display_name: Python 3, language: python}
# ---
"""

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras may import TensorFlow beside another backend
sys.path.insert(0, str(DOCS / "extensions"))

import keras_adjoint  # noqa: E402

# What the guides import when they are run: each other, and this copy of the package.
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (GUIDES, Path(keras_adjoint.__file__).resolve().parents[1])))

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "keras-adjoint"
author = "The keras-adjoint authors"
copyright = author
version = release = keras_adjoint.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.typer",
    "docstrings",
    "drawings",
    "repository",
]
exclude_patterns = ["build", "conf.py", "drawings", "extensions"]

# The guides whose output stands on their pages. The others compare for hours, or are imported by these.
guides_run = [
    "autoencoder",
    "mirror_pretrained",
    "deconvnet",
    "channels_and_biases",
    "export",
    "migrate",
    "custom_rules",
    "which_transpose",
    "norms_of_pretrained_layers",
]

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_excludepatterns = [
    f"{FOLDER}/{guide.name}" for guide in GUIDES.glob("*.py") if guide.stem not in guides_run
]
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_append_css = False  # cells look like other code, see static/style.css
nb_output_stderr = "remove"  # what frameworks have to say about themselves

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
BIBTEX = f"""```text
@software{{keras_adjoint,
  title   = {{{CITATION["title"]}}},
  author  = {{{{{" and ".join(author["name"] for author in CITATION["authors"])}}}}},
  version = {{{CITATION["version"]}}},
  url     = {{{CITATION["repository-code"]}}}
}}
```"""

myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_substitutions = {"bibtex": BIBTEX}
myst_heading_anchors = 3
smartquotes_action = "D"  # dashes, but not quotation marks, which are mostly around code

autodoc_typehints = "none"  # the docstrings say in words what the arguments are
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

DEFAULT_STYLES["markdown.code"] = Style(color="cyan")  # of examples of the command line, without a black background

html_theme = "furo"
html_theme_options = {
    "source_repository": PROJECT["urls"]["Repository"],
    "source_branch": "main",
    "source_directory": "docs/",
}
html_title = f"keras-adjoint {release}"
pygments_dark_style = "a11y-dark"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_copyright = False

copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div:not(.output) > div.highlight > pre"

linkcheck_timeout = 20
linkcheck_retries = 2


def copy_guides(app):
    """Copy the guides to where Sphinx reads them, with their links to pages of the documentation starting from there."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    for guide in GUIDES.glob("*.py"):
        text = guide.read_text(encoding="utf-8").replace("](../docs/", "](../")
        (folder / guide.name).write_text(KERNEL + text, encoding="utf-8")


def offer_downloads(app, doctree):
    """Put links to the program and to the notebook below the title of a guide."""
    folder, _, name = app.env.docname.rpartition("/")
    if folder != FOLDER:
        return
    notebook = Path(app.env.mystnb_config.output_folder) / FOLDER / f"{name}.ipynb"
    files = {"program": GUIDES / f"{name}.py", "notebook": notebook}
    if "import pretrained_networks" in files["program"].read_text(encoding="utf-8"):
        files["the module that it imports"] = GUIDES / "pretrained_networks.py"
    text = nodes.paragraph("", "Download it as a ")
    for number, (what, file) in enumerate(files.items()):
        target = f"/{os.path.relpath(file, app.srcdir)}"
        text += [nodes.Text((" or a ", ", with ")[number - 1] if number else "")]
        text += download_reference("", "", nodes.inline("", what), reftarget=target)
    text += nodes.Text(".")
    box = nodes.admonition("", nodes.title("", "Run this guide yourself"), text, classes=["tip"])
    doctree.next_node(nodes.title).parent.insert(1, box)


def link_to_the_program(app, page, template, context, doctree):
    """Have "view this page" and "edit this page" lead to the guide itself, and not to its copy."""
    if page.startswith(f"{FOLDER}/"):
        context["theme_source_directory"] = ""


def setup(app):
    app.connect("builder-inited", copy_guides)
    app.connect("doctree-read", offer_downloads, priority=400)  # before Sphinx collects what is to be downloaded
    app.connect("html-page-context", link_to_the_program)
