"""The style of all `--json`: identifiers as keys, values with types, and every key on the page about the command line."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "command_line.md"
ALL = "all"


def documented():
    """{command: the paths of its keys} of the table on the page about the command line."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        row = re.fullmatch(r"\| ([\w, ]+) \| `([^|]+)` \| .+ \|", line)
        for command in row[1].split(", ") if row else ():
            found.setdefault(command, set()).update(row[2].split("`, `"))
    return found


def paths(value, known, path=""):
    """The paths of all keys in a value: `a.b`, `a[].b` in a list, and `a{}` where the keys are names from the data."""
    if isinstance(value, dict):
        if f"{path}{{}}" in known:
            yield f"{path}{{}}"
            return
        if path:
            yield path
        for key, inner in value.items():
            yield from paths(inner, known, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for inner in value:
            yield from (one for one in paths(inner, known, f"{path}[]") if one != f"{path}[]")
    else:
        yield path


def leaves(value):
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


def check_style(command, data):
    known = documented()
    found = set(paths(data, known[command] | known[ALL]))
    general = {path for path in known[ALL] if path in found}
    assert found - general == known[command]
    assert list(data)[0] in ("input", "output") and "backend" in data or command == "kernel"
    for path in found:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", re.split(r"[.\]]+", path.removesuffix("{}"))[-1]), path
    for leaf in leaves(data):
        assert leaf != "" and not (isinstance(leaf, str) and re.fullmatch(r"[-+]?[\d.,]+( of \d+)?( \w?B)?", leaf)), (
            leaf
        )
