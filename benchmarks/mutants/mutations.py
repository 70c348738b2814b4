"""Small wrong changes of an expression: another operator, a number off by one, a condition negated, arguments exchanged."""

import ast
import copy

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}


def mutations(node, statement):
    """(what is changed, the changed node) for an expression of a statement."""
    kind = type(node)
    if kind is ast.Compare and len(node.ops) == 1:
        yield "comparison", changed(node, ops=[COMPARISONS[type(node.ops[0])]()])
    if kind is ast.Compare and len(node.ops) > 1:
        yield "first comparison", changed(node, ops=[COMPARISONS[type(node.ops[0])](), *node.ops[1:]])
    if kind is ast.BinOp and type(node.op) in ARITHMETIC and not is_text(node.left) and not is_text(node.right):
        yield "arithmetic", changed(node, op=ARITHMETIC[type(node.op)]())
    if kind is ast.BoolOp:
        yield "and, or", changed(node, op=ARITHMETIC[type(node.op)]())
    if kind is ast.UnaryOp and isinstance(node.op, (ast.USub, ast.Not)):
        yield "sign", node.operand
    if kind is ast.Constant and type(node.value) is int:
        yield "one more", ast.Constant(node.value + 1)
        if node.value > 0:
            yield "one less", ast.Constant(node.value - 1)
    if kind is ast.Constant and type(node.value) is bool:
        yield "truth", ast.Constant(not node.value)
    if kind is ast.IfExp:
        yield "branches", changed(node, body=node.orelse, orelse=node.body)
    if kind is ast.Name and node.id in OPPOSITES:
        yield "opposite", ast.Name(OPPOSITES[node.id])
    if kind is ast.Call and takes_two_alike(node):
        yield "arguments", changed(node, args=[node.args[1], node.args[0], *node.args[2:]])
    if isinstance(statement, (ast.If, ast.While)) and node is statement.test:
        yield "condition", ast.UnaryOp(ast.Not(), node)
    if isinstance(statement, ast.Return) and node is statement.value and kind is ast.Call and is_step(node):
        yield "step left out", node.args[0]
    if kind is ast.comprehension and node.ifs:
        yield "filter left out", changed(node, ifs=node.ifs[1:])


def changed(node, **fields):
    node = copy.copy(node)
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def is_text(node):
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def takes_two_alike(call):
    """Whether the first two arguments are of one form, so that exchanging them need not be an error at once."""
    one, other = map(type, (call.args + [None, None])[:2])
    return one is other and one in (ast.Name, ast.Attribute, ast.Constant, ast.BinOp, ast.Subscript, ast.Call)


def is_step(call):
    """Whether a call changes its first argument and gives it back, going by its form: `ops.reshape(y, shape)`."""
    return (
        len(call.args) > 0 and isinstance(call.args[0], (ast.Name, ast.Call)) and isinstance(call.func, ast.Attribute)
    )


class Replacement(ast.NodeTransformer):
    """Puts one node of a tree in the place of another."""

    def __init__(self, node, new):
        self.node, self.new = node, new

    def visit(self, node):
        return self.new if node is self.node else self.generic_visit(node)
