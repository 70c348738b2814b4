"""The page: its template filled in. Everything that comes from the model is escaped there."""

from importlib import resources

import jinja2
from markupsafe import Markup

from keras_adjoint import __version__

OPEN = 6  # the largest number of layers whose sections are all open from the start


def page_about(facts):
    """`Facts` about a model as the text of one HTML file."""
    return (
        environment()
        .get_template("page.html")
        .render(facts=facts, version=__version__, all_open=len(facts.sections) <= OPEN)
    )


def environment():
    """Where templates come from, and what they can do."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(source_of),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters.update(path=path, figure=figure, residual=residual, with_code=with_code, isolated=isolated)
    return made


def source_of(name):
    """The text of a file beside this one."""
    return (resources.files("keras_adjoint.report") / "templates" / name).read_text(encoding="utf-8")


def path(points):
    """Points as an SVG polyline has them."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def figure(value):
    """A number with three digits that matter."""
    return f"{value:.3g}"


def residual(value):
    return f"{value:.1e}" if value else "0"


def isolated(name):
    """A name as HTML that keeps to itself which way its letters run."""
    return Markup("<bdi>{}</bdi>").format(name)


def with_code(text):
    """A text as HTML, in which what stands between backticks is code."""
    parts = enumerate(text.split("`"))
    return Markup().join(Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in parts)
