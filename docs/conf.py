"""How Sphinx builds the site: `make docs`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # Keras may import TensorFlow beside another backend
sys.path.insert(0, str(Path(__file__).parent / "extensions"))

import keras_adjoint  # noqa: E402

project = "keras-adjoint"
author = "The keras-adjoint authors"
copyright = author
version = release = keras_adjoint.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "command_line",
    "docstrings",
    "drawings",
    "guides",
]
exclude_patterns = ["build", "**/notes.md"]

# The guides that print and draw something on their pages. The others compare for hours, or are read by these.
guides_run = [
    "autoencoder",
    "mirror_pretrained",
    "deconvnet",
    "channels_and_biases",
    "export",
    "migrate",
    "custom_rules",
    "which_transpose",
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes_action = "D"  # dashes, but not quotation marks, which are mostly around code

autodoc_typehints = "none"  # the docstrings say in words what the arguments are
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
pygments_dark_style = "a11y-dark"
html_title = "keras-adjoint"
html_static_path = ["static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_copyright = False

linkcheck_timeout = 20
linkcheck_retries = 2
