"""Follow the names of a script from statement to statement, without running any of them.

Functions are read where they are defined. After a branch or a loop a name stands for something only if it stands for the
same wherever the script may have come from.
"""

import ast
import re

from keras_adjoint.doctor.scripts.evaluation import KERNELS, Evaluation, mark_used
from keras_adjoint.doctor.scripts.events import Set
from keras_adjoint.doctor.scripts.names import layer_type
from keras_adjoint.doctor.scripts.values import Kernel, Layer, Several


class Flow(Evaluation):
    """Reads a whole script; its `events` are what the script does, in order."""

    def __init__(self, imports):
        super().__init__(imports)
        self.in_layer = ""  # the method that is being read, in a class of a layer

    def read(self, statements):
        for statement in statements:
            method = getattr(self, f"read_{type(statement).__name__.lower()}", None)
            if method:
                method(statement)
            else:
                self.read_parts(statement)

    def read_parts(self, statement):
        """Expressions of a statement, and blocks that run in any case, such as those of `with`."""
        for child in ast.iter_child_nodes(statement):
            if isinstance(child, ast.expr):
                mark_used(self.value(child)) if isinstance(statement, ast.Return) else self.value(child)
            elif isinstance(child, ast.withitem):
                self.value(child.context_expr)
                self.forget(child.optional_vars)
        self.read(getattr(statement, "body", ()))

    # --- assignments

    def read_assign(self, statement):
        value = self.value(statement.value)
        for target in statement.targets:
            self.assign(target, statement.value, value, statement)

    def read_annassign(self, statement):
        self.assign(statement.target, statement.value, self.value(statement.value), statement)

    def read_augassign(self, statement):
        self.value(statement.value)
        self.forget(statement.target)

    def read_delete(self, statement):
        for target in statement.targets:
            self.forget(target)

    def assign(self, target, node, value, statement):
        """Let a target stand for a value."""
        if isinstance(target, (ast.Tuple, ast.List)):
            items = value.items if isinstance(value, Several) else ()
            fits = len(items) == len(target.elts) or (isinstance(value, Several) and value.layer is not None)
            for number, part in enumerate(target.elts):
                self.assign(part, node, items[number] if fits and number < len(items) else None, statement)
            return
        owner = self.value(target.value) if isinstance(target, (ast.Attribute, ast.Subscript)) else None
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and isinstance(owner, Several):
            self.names[target.value.id] = with_item(owner, target.slice, value)
            return
        if isinstance(target, ast.Attribute):
            if target.attr in KERNELS and isinstance(value, Kernel):
                owner = self.layer_at(target.value, owner)
            self.events.append(Set(statement, target, owner, (node, value), dict(self.names), self.in_layer))
            if isinstance(owner, Layer) and isinstance(value, Kernel) and value.layer is not owner:
                owner.shares = value.layer
                return
            mark_used(value)
        self.forget(target)
        if value is not None and not isinstance(target, ast.Starred):
            if isinstance(value, Layer) and value.kind:
                value.text = ast.unparse(target)
            self.names[ast.unparse(target)] = value

    def forget(self, target):
        """Whatever is said in terms of a name says nothing once the name stands for something else."""
        if isinstance(target, (ast.Tuple, ast.List)):
            for part in target.elts:
                self.forget(part)
        elif isinstance(target, (ast.Starred, ast.Subscript)):
            self.forget(target.value)
        elif target is not None:
            said = re.compile(rf"(?<![\w.]){re.escape(ast.unparse(target))}(?!\w)")
            self.names = {name: value for name, value in self.names.items() if not said.search(name)}

    # --- branches and loops

    def read_if(self, statement):
        self.value(statement.test)
        self.branch(statement.body, statement.orelse)

    def read_for(self, statement):
        self.value(statement.iter)
        self.forget(statement.target)
        self.branch(statement.body, ())
        self.read(statement.orelse)

    read_asyncfor = read_for

    def read_while(self, statement):
        self.value(statement.test)
        self.branch(statement.body, ())
        self.read(statement.orelse)

    def read_try(self, statement):
        self.branch(statement.body, *(handler.body for handler in statement.handlers))
        self.read(statement.orelse)
        self.read(statement.finalbody)

    read_trystar = read_try

    def read_match(self, statement):
        self.value(statement.subject)
        self.branch((), *(case.body for case in statement.cases))

    def branch(self, *blocks):
        """Read blocks of which one or another runs, and keep what all of them agree on."""
        before, after = self.names, []
        for block in blocks:
            self.names = dict(before)
            self.read(block)
            after.append(self.names)
        first, *others = after
        self.names = {name: value for name, value in first.items() if all(other.get(name) is value for other in others)}

    # --- functions and classes

    def read_functiondef(self, function):
        for expression in (*function.decorator_list, *function.args.defaults, *function.args.kw_defaults):
            self.value(expression)
        outside = self.names, self.scope, self.in_layer
        arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        self.names = dict(self.names)
        for name in {argument.arg for argument in arguments} - {"self"}:
            self.forget(ast.Name(name))
        self.scope = function
        self.in_layer = function.name if self.in_layer else ""
        self.read(function.body)
        attributes = {name: value for name, value in self.names.items() if name.startswith("self.")}
        self.names, self.scope, self.in_layer = outside
        if self.in_layer and function.name in ("__init__", "build"):
            self.names = {**self.names, **attributes}

    read_asyncfunctiondef = read_functiondef

    def read_classdef(self, definition):
        outside = self.names, self.in_layer
        self.names = dict(self.names)
        is_layer = any(self.is_layer(base) for base in definition.bases)
        if is_layer and holds_what_it_reads(definition):
            self.ties.add(definition.name)
        self.in_layer = definition.name if is_layer else ""
        self.read(definition.body)
        self.names, self.in_layer = outside

    def is_layer(self, base):
        path = self.path(base) or ""
        return layer_type(path) is not None or path in ("keras.Layer", "keras.Model", "keras.models.Model")


def with_item(several, index, value):
    """A list with another value in one place."""
    try:
        place = ast.literal_eval(index)
        items = list(several.items)
        items[place] = value
    except (ValueError, TypeError, IndexError):
        return Several(())
    return Several(tuple(items), several.layer)


def holds_what_it_reads(definition):
    """Whether a class keeps an argument as `self.a`, and reads the kernel of that, as tied layers of one's own do."""
    kept, read = set(), set()
    for node in ast.walk(definition):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            kept |= {target.attr for target in node.targets if is_of_self(target)}
        elif (
            isinstance(node, ast.Attribute)
            and is_of_self(node.value)
            and node.attr in (*KERNELS, "weights", "get_weights")
        ):
            read.add(node.value.attr)
    return bool(kept & read)


def is_of_self(node):
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
