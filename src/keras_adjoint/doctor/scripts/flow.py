"""Follow the names of a script from statement to statement, without running any of them.

Functions are read where they are defined. After a branch or a loop a name stands for something only if it stands for the
same on every path that may have been taken.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TypeAlias

import libcst as cst

from keras_adjoint.doctor.scripts.evaluation import KERNEL_ATTRIBUTES, Evaluation, index_of, mark_used
from keras_adjoint.doctor.scripts.syntax import Source, descendants, expressions_in, text_of
from keras_adjoint.doctor.scripts.values import (
    AssignmentEvent,
    Event,
    KernelExpression,
    Layer,
    Several,
    TieEvent,
    Value,
    layer_type,
)

Statement: TypeAlias = cst.BaseStatement | cst.BaseSmallStatement


class Script(Source):
    """A script and what it does."""

    @cached_property
    def events(self) -> list[Event]:
        """What the script does, in order."""
        flow = Flow(self)
        flow.read(self.module.body)
        return flow.events


class Flow(Evaluation):
    """Reads a whole script; its `events` are what the script does, in order."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.in_layer = ""  # the method that is being read, in a class of a layer

    def read(self, statements: Sequence[Statement]) -> None:
        for statement in statements:
            self.read_statement(statement)

    def read_statement(self, statement: Statement) -> None:
        match statement:
            case cst.SimpleStatementLine():
                self.read(statement.body)
            case cst.Import():
                pass
            case cst.ImportFrom(names=cst.ImportStar(), module=module) if module is not None and not statement.relative:
                self.source.stars.append(text_of(module))
            case cst.ImportFrom():
                pass
            case cst.Assign():
                value = self.value(statement.value)
                for target in statement.targets:
                    self.assign(target.target, statement.value, value)
            case cst.AnnAssign():
                self.assign(statement.target, statement.value, self.value(statement.value))
            case cst.AugAssign():
                self.value(statement.value)
                self.forget_target(statement.target)
            case cst.Del():
                self.forget_target(statement.target)
            case cst.Return():
                mark_used(self.value(statement.value))
            case cst.If():
                self.value(statement.test)
                self.branch(block(statement.body), alternative(statement.orelse))
            case cst.For():
                self.value(statement.iter)
                self.forget_target(statement.target)
                self.branch(block(statement.body), ())
                self.read(alternative(statement.orelse))
            case cst.While():
                self.value(statement.test)
                self.branch(block(statement.body), ())
                self.read(alternative(statement.orelse))
            case cst.Try() | cst.TryStar():
                self.branch(block(statement.body), *(block(handler.body) for handler in statement.handlers))
                self.read(alternative(statement.orelse))
                self.read(block(statement.finalbody.body) if statement.finalbody else ())
            case cst.With():
                for item in statement.items:
                    self.value(item.item)
                    self.forget_target(item.asname.name if item.asname else None)
                self.read(block(statement.body))
            case cst.Match():
                self.value(statement.subject)
                self.branch((), *(block(case.body) for case in statement.cases))
            case cst.FunctionDef():
                self.read_function(statement)
            case cst.ClassDef():
                self.read_class(statement)
            case _:
                for expression in expressions_in(statement):
                    self.value(expression)

    # --- assignments

    def assign(self, target: cst.BaseExpression, node: cst.BaseExpression | None, value: Value) -> None:
        """Let a target stand for a value."""
        if isinstance(target, (cst.Tuple, cst.List)):
            items = value.items if isinstance(value, Several) else ()
            fits = isinstance(value, Several) and (len(items) == len(target.elements) or value.layer is not None)
            for number, part in enumerate(target.elements):
                item = items[number] if fits and number < len(items) else None
                if isinstance(part, cst.StarredElement):
                    self.forget_target(part.value)
                else:
                    self.assign(part.value, node, item)
            return
        owner = self.value(target.value) if isinstance(target, (cst.Attribute, cst.Subscript)) else None
        if isinstance(target, cst.Subscript) and isinstance(target.value, cst.Name) and isinstance(owner, Several):
            self.bind(target.value.value, with_item(owner, index_of(target), value))
            return
        if isinstance(target, cst.Attribute):
            if target.attr.value in KERNEL_ATTRIBUTES and isinstance(value, KernelExpression):
                owner = self.layer_at(target.value, owner)
            self.events.append(AssignmentEvent(target, owner, node, value, self.in_layer))
            if isinstance(owner, Layer) and isinstance(value, KernelExpression) and value.layer is not owner:
                owner.shares = value.layer
                return
            mark_used(value)
        self.forget_target(target)
        if value is not None:
            if isinstance(value, Layer) and value.kind:
                value.text = text_of(target)
            self.bind(text_of(target), value)

    def forget_target(self, target: cst.BaseExpression | None) -> None:
        """Forget everything that mentions what is assigned to."""
        if isinstance(target, (cst.Tuple, cst.List)):
            for part in target.elements:
                self.forget_target(part.value)
        elif isinstance(target, cst.Subscript):
            self.forget_target(target.value)
        elif target is not None:
            self.forget(text_of(target))

    def branch(self, *blocks: Sequence[Statement]) -> None:
        """Read blocks of which one or another runs, and keep what all of them agree on."""
        before, after = self.names, []
        for statements in blocks:
            self.names = dict(before)
            self.read(statements)
            after.append(self.names)
        first, *others = after
        self.names = {name: value for name, value in first.items() if all(other.get(name) is value for other in others)}

    # --- functions and classes

    def read_function(self, function: cst.FunctionDef) -> None:
        parameters = function.params
        named = (*parameters.posonly_params, *parameters.params, *parameters.kwonly_params)
        for expression in (*(one.decorator for one in function.decorators), *(one.default for one in named)):
            self.value(expression)
        outside = self.names, self.scope, self.in_layer
        self.names = dict(self.names)
        for name in {one.name.value for one in named} - {"self"}:
            self.forget(name)
        self.scope = function
        self.in_layer = function.name.value if self.in_layer else ""
        self.read(block(function.body))
        attributes = {name: value for name, value in self.names.items() if name.startswith("self.")}
        self.names, self.scope, self.in_layer = outside
        if self.in_layer and function.name.value in ("__init__", "build"):
            self.names = {**self.names, **attributes}

    def read_class(self, definition: cst.ClassDef) -> None:
        outside = self.names, self.in_layer
        self.names = dict(self.names)
        is_layer = any(self.is_layer(base.value) for base in definition.bases)
        held = held_and_read(definition) if is_layer else []
        if held:
            self.ties.add(definition.name.value)
            self.events.append(TieEvent(definition, held[0]))
        self.in_layer = definition.name.value if is_layer else ""
        self.read(block(definition.body))
        self.names, self.in_layer = outside

    def is_layer(self, base: cst.BaseExpression) -> bool:
        path = self.path(base) or ""
        return layer_type(path) is not None or path in ("keras.Layer", "keras.Model", "keras.models.Model")


def block(body: cst.BaseSuite) -> Sequence[Statement]:
    """The statements of an indented block, or of the rest of a line."""
    statements: Sequence[Statement] = body.body
    return statements


def alternative(orelse: cst.If | cst.Else | None) -> Sequence[Statement]:
    """The statements of an `else`; an `elif` is one statement."""
    return block(orelse.body) if isinstance(orelse, cst.Else) else [orelse] if orelse is not None else ()


def with_item(several: Several, index: object, value: Value) -> Several:
    """A list with another value in one place; with nothing that is known, if the place is not."""
    if not isinstance(index, int) or not -len(several.items) <= index < len(several.items):
        return Several(())
    items = list(several.items)
    items[index] = value
    return Several(tuple(items), several.layer)


def held_and_read(definition: cst.ClassDef) -> list[str]:
    """Each a of which a class keeps an argument as `self.a` and reads the kernel, as hand-written tied layers do."""
    kept: set[str] = set()
    read: set[str] = set()
    for node in descendants(definition):
        if isinstance(node, cst.Assign) and isinstance(node.value, cst.Name):
            kept |= {attribute for target in node.targets if (attribute := attribute_of_self(target.target))}
        elif isinstance(node, cst.Attribute) and node.attr.value in (*KERNEL_ATTRIBUTES, "weights", "get_weights"):
            attribute = attribute_of_self(node.value)
            read |= {attribute} if attribute else set()
    return sorted(kept & read)


def attribute_of_self(node: cst.BaseExpression) -> str | None:
    """The a of `self.a`; `None` of everything else."""
    match node:
        case cst.Attribute(value=cst.Name(value="self"), attr=cst.Name(value=name)):
            return name
    return None
