"""A repaired copy of a script: some pieces of text exchanged, everything else as it was."""

from keras_adjoint.doctor.scripts.illnesses import examine_script
from keras_adjoint.doctor.scripts.script import Script


def repair_script(text, path, findings):
    """(the repaired text, the findings that are gone).

    Edits that overlap an earlier one are left out, and so is whatever would still be found afterwards.
    """
    script = Script(text, path)
    taken, repaired = [], []
    for finding in findings:
        edits = finding.remedy or ()
        if edits and not any(overlap(edit, other) for edit in edits for other in taken if edit != other):
            taken.extend(edit for edit in edits if edit not in taken)
            repaired.append(finding)
    result = script.edited(taken)
    before, after = (illnesses(found) for found in (findings, examine_script(result, path)))
    return result, [finding for finding in repaired if after.get(finding.illness, 0) < before[finding.illness]]


def overlap(edit, other):
    return edit.start < other.end and other.start < edit.end


def illnesses(findings):
    """How often each illness was found."""
    counts = {}
    for finding in findings:
        counts[finding.illness] = counts.get(finding.illness, 0) + 1
    return counts
