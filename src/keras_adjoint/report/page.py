"""The page: its template filled in. Everything that comes from the model is escaped there."""

from collections.abc import Iterable
from importlib import resources

import jinja2
from markupsafe import Markup

from keras_adjoint import __version__
from keras_adjoint.report.facts import Facts

MOST_OPEN = 6  # the largest number of layers whose sections are all open from the start


def page_about(facts: Facts) -> str:
    """`Facts` about a model as the text of one HTML file."""
    return (
        environment()
        .get_template("page.html")
        .render(facts=facts, version=__version__, all_open=len(facts.sections) <= MOST_OPEN)
    )


def environment() -> jinja2.Environment:
    """The templates of this package, with the filters below. Values are escaped."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(source_of),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters.update(path=path, figure=figure, residual=residual, with_code=with_code, isolated=isolated)
    return made


def source_of(name: str) -> str:
    """The text of a template."""
    return (resources.files("keras_adjoint.report") / "templates" / name).read_text(encoding="utf-8")


def path(points: Iterable[tuple[float, float]]) -> str:
    """The points of an SVG polyline."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def figure(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:.3g}"


def residual(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def isolated(name: str) -> Markup:
    """A name as HTML, isolated so that right-to-left letters in it do not reorder the text around it."""
    return Markup("<bdi>{}</bdi>").format(name)


def with_code(text: str) -> Markup:
    """A text as HTML, with everything between backticks as code."""
    parts = enumerate(text.split("`"))
    return Markup().join(Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in parts)
