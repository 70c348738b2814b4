"""A script as text and as syntax tree: places, pieces of text, and the text with some pieces exchanged."""

import ast
import re
from dataclasses import dataclass
from functools import cached_property

from keras_adjoint.doctor.scripts.flow import Flow
from keras_adjoint.doctor.scripts.names import Names


@dataclass(frozen=True)
class Edit:
    """A piece of text in the place of another one, by offsets in bytes."""

    start: int
    end: int
    text: str


class Script:
    """A Python script.

    Args:
        text: The text, with the line ends that it has in the file.
        path: Where it was read.

    Raises:
        SyntaxError: If it is none; ValueError and RecursionError, where Python's parser raises these.
    """

    def __init__(self, text, path):
        self.text = text
        self.path = path
        self.data = text.encode("utf-8")
        self.tree = ast.parse(text)
        self.imports = Names(self.tree)

    @cached_property
    def events(self):
        """What the script does, in order."""
        flow = Flow(self.imports)
        flow.read(self.tree.body)
        return flow.events

    @cached_property
    def starts(self):
        """Where each line begins, in bytes, as Python counts lines."""
        return [match.start() for match in re.finditer(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", self.data)] or [0]

    def offset(self, line, column):
        return self.starts[line - 1] + column

    def span(self, node):
        """(start, end) of a node in bytes."""
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def source(self, node):
        """The text of a node."""
        start, end = self.span(node)
        return self.data[start:end].decode("utf-8")

    def place(self, node):
        """file:line:column, both counted from 1, columns in characters."""
        start = self.starts[node.lineno - 1]
        before = self.data[start : start + node.col_offset].decode("utf-8")
        return f"{self.path}:{node.lineno}:{len(before) + 1}"

    def replace(self, node, text):
        """The `Edit` that writes something else in the place of a node."""
        return Edit(*self.span(node), text)

    def insert_import(self, statement, *, before):
        """The `Edit` that adds an import behind the last one that stands above a node, or at the beginning."""
        imports = [
            node
            for node in self.tree.body
            if isinstance(node, (ast.Import, ast.ImportFrom)) and node.end_lineno < before.lineno
        ]
        line_end = "\r\n" if b"\r\n" in self.data else "\n"
        if not imports:
            first = self.tree.body[0]  # behind a docstring, if there is one
            documented = ast.get_docstring(self.tree, clean=False) is not None and first.end_lineno < before.lineno
            offset = self.line_after(first) if documented else self.starts[first.lineno - 1]
        else:
            offset = self.line_after(imports[-1])
        return Edit(offset, offset, f"{statement}{line_end}")

    def line_after(self, node):
        """Where the line behind a node begins."""
        return self.starts[node.end_lineno] if node.end_lineno < len(self.starts) else len(self.data)

    def edited(self, edits):
        """The text after edits that do not overlap."""
        data = self.data
        for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
            data = data[: edit.start] + edit.text.encode("utf-8") + data[edit.end :]
        return data.decode("utf-8")

    def lines_after(self, edit):
        """The lines that an edit touches, as they are afterwards."""
        first = max(start for start in self.starts if start <= edit.start)
        last = next((start for start in self.starts if start > max(edit.end - 1, edit.start)), len(self.data))
        changed = self.data[first : edit.start] + edit.text.encode("utf-8") + self.data[edit.end : last]
        return changed.decode("utf-8").strip("\r\n")
