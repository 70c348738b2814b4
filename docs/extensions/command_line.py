"""The directive `{command-line}`: what `keras-adjoint --help` says, one section for each subcommand.

The page is made from the program at every build, so that it cannot fall behind.
"""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from typer import Context
from typer.main import get_command

from keras_adjoint_cli.app import app as typer_app

PROGRAM = "keras-adjoint"


def table(heads, rows):
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def parameters(command, context, kind):
    """(name, help) of a command's arguments or options."""
    records = [p.get_help_record(context) for p in command.get_params(context) if p.param_type_name == kind]
    return [(f"`{name}`", " ".join((text or "").split())) for name, text in filter(None, records)]


def section(command, context):
    """The help of one subcommand, in Markdown."""
    name = f"{PROGRAM} {command.name}"
    parts = [f"## {command.name}", command.help or ""]
    parts.append(f"```text\n{name} {' '.join(command.collect_usage_pieces(context))}\n```")
    for kind, heads in (("argument", ("argument", "what it is")), ("option", ("option", "what it does"))):
        rows = parameters(command, context, kind)
        parts += [table(heads, rows)] if rows else []
    return "\n\n".join([*parts, command.epilog or ""])


def sections():
    """The help of every subcommand, in Markdown."""
    group = get_command(typer_app)
    context = Context(group, info_name=PROGRAM)
    return [section(group.get_command(context, name), context) for name in group.list_commands(context)]


class CommandLine(SphinxDirective):
    """The directive."""

    def run(self):
        root = nodes.section()
        root.document = self.state.document
        lines = "\n\n".join(sections()).splitlines()
        self.state.nested_parse(StringList(lines, "keras-adjoint --help"), self.content_offset, root, match_titles=True)
        return root.children


def setup(app):
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
