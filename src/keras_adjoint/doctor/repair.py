"""Repaired copies of scripts: some expressions are replaced; everything else stays the very same."""

from collections import Counter
from collections.abc import Sequence

from keras_adjoint.doctor.finding import Finding
from keras_adjoint.doctor.rules import examine_script
from keras_adjoint.doctor.scripts.syntax import MAX_RECURSION, ScriptChange
from keras_adjoint.recursion import deep_recursion


def repair_script(
    text: str, path: str, findings: Sequence[Finding[ScriptChange]]
) -> tuple[str, list[Finding[ScriptChange]]]:
    """(the repaired text, the findings that are gone).

    Edits that overlap an earlier one are left out, and so is whatever would still be found afterwards.
    """
    made: list[ScriptChange] = []
    repaired = []
    for finding in findings:
        change = finding.change
        if change is not None and not any(change.source.overlap(change, other) for other in made):
            made.extend([change] if change not in made else [])
            repaired.append(finding)
    if not made:
        return text, []
    with deep_recursion(MAX_RECURSION):
        text = made[0].source.edited(made)
    before = Counter(finding.rule for finding in findings)
    after = Counter(finding.rule for finding in examine_script(text, path))
    return text, [finding for finding in repaired if after[finding.rule] < before[finding.rule]]
