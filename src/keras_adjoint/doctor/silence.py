"""Comments that silence findings: `# keras-adjoint: ignore`, or `ignore[checkerboard, tie-lost]` for these rules alone.

Such a comment is about the line that it is on, or, if it is alone on its line, about the next line with code.
"""

import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from typing import Any

from keras_adjoint.doctor.finding import Finding, identifier

COMMENT = re.compile(r"#\s*keras-adjoint:\s*ignore\b(?:\[([^\]]*)\])?")
LAYOUT = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)


def silenced_lines(text: str) -> dict[int, set[str] | None]:
    """The rules that comments silence, by line; `None` for all rules."""
    found: dict[int, set[str] | None] = {}
    waiting: list[set[str] | None] = []  # comments on lines of their own
    code = 0  # the last line with code
    for token in tokens(text):
        line = token.start[0]
        if token.type not in LAYOUT:
            for rules in waiting:
                add(found, line, rules)
            waiting, code = [], token.end[0]
        elif token.type == tokenize.COMMENT and (match := COMMENT.search(token.string)):
            rules = None if match[1] is None else {identifier(name) for name in match[1].split(",")}
            if line == code:
                add(found, line, rules)
            else:
                waiting.append(rules)
    return found


def unknown_rules(text: str, known: Iterable[str]) -> list[tuple[int, str]]:
    """(line, name) of what comments name, as the rules that they silence, and is none."""
    lines = silenced_lines(text) if "keras-adjoint:" in text else {}
    return [
        (line, name) for line, rules in sorted(lines.items()) for name in sorted((rules or set()).difference(known))
    ]


def add(found: dict[int, set[str] | None], line: int, rules: set[str] | None) -> None:
    before = found.get(line, set())
    found[line] = None if before is None or rules is None else before | rules


def tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    """The tokens of a script, up to where they cannot be read."""
    try:
        yield from tokenize.generate_tokens(io.StringIO(text).readline)
    except (tokenize.TokenError, SyntaxError):
        return


def split(findings: Iterable[Finding[Any]], text: str, path: str) -> tuple[list[Finding[Any]], list[Finding[Any]]]:
    """(the findings that count, those that comments silence)."""
    lines = silenced_lines(text) if "keras-adjoint:" in text else {}
    kept: list[Finding[Any]] = []
    silenced: list[Finding[Any]] = []
    for finding in findings:
        line = int(finding.place.removeprefix(f"{path}:").partition(":")[0])
        rules = lines.get(line, set())
        (silenced if rules is None or finding.identifier in rules else kept).append(finding)
    return kept, silenced
