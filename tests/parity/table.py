"""Makes the table in docs/formats.md: each family, what is read and written, and the parity reached.

    PATCHWORD_CASES=… PATCHWORD_KEYS=… python tests/parity/table.py [--write docs/formats.md]

Without the two variables it counts the committed cases alone. Every number is computed here.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from patchword.containers.stored import tensor_of
from patchword.errors import CheckpointError
from patchword.formats.layouts.google_names import ResampledKernel
from patchword.formats.read import open_foreign, read_tensors
from patchword.formats.source import Source
from patchword.formats.write import write_as
from support.keys import folders as key_folders
from support.keys import lists_in, opened, refused, unmapped
from support.parity import Case, cases_in, differences, options_of
from support.parity import folders as case_folders

BEGIN, END = "<!-- made by tests/parity/table.py -->", "<!-- end of what is made -->"


@dataclass
class Row:
    """One family of one origin. worst: the largest relative difference of any recorded answer.

    asked: cases whose hints ask for another patch, and so for other tensors than the file's.
    """

    layouts: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    cases: int = 0
    read: int = 0
    worst: float = 0.0
    written: int = 0
    refused: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    rows: dict[tuple[str, str], Row] = defaultdict(Row)
    for case in cases_in(case_folders(), {"backbone"}):
        measure(case, rows[case.meta["origin"], case.meta["family"]])
    text = table(rows) + "\n\n" + table_of_keys(lists_in(key_folders()))
    if chosen.write is None:
        print(text)
        return
    before, _, rest = chosen.write.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    chosen.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


@torch.no_grad()
def measure(case: Case, row: Row) -> None:
    row.cases += 1
    try:
        model = case.load()
    except CheckpointError as error:
        row.refused.append(f"{case.name}: {error.message.split(': ', 1)[-1]}")
        return
    far = differences(case, model)
    if max(far.values()) <= case.meta["tolerance"]:
        row.read += 1
        row.worst = max(row.worst, *far.values())
    else:
        row.refused.append(
            f"{case.name}: {max(far, key=lambda n: far[n])} differs by {max(far.values()):.2g}"
        )
    row.layouts.add(model.report.layout)
    row.written += came_back(case, row)


def came_back(case: Case, row: Row) -> bool:
    """Whether the case, written in its own layout, gives every tensor back that was not dropped.

    A kernel resampled because the hints ask for another patch cannot: it is told apart from what is lost.
    """
    opened = open_foreign(case.path, options_of(case.meta["hints"], case.folder))
    row.names.add(opened.layout.name)
    source = Source(
        card=opened.card,
        tensors=read_tensors(opened),
        layout=opened.layout,
        spelling=opened.description.spelling,
    )
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "written"
        try:
            written = write_as(source, opened.layout, out)
        except CheckpointError as error:
            row.refused.append(f"{case.name}: not written: {error.message.split(': ', 1)[-1]}")
            return False
        again = written.reopened.checkpoint.tensors
        dropped = {name for d in opened.plan.dropped for name in d.names}
        kernels = [n for r in opened.plan.rules if isinstance(r.op, ResampledKernel) for n in r.theirs]
        dropped.update(kernels)
        kept = {name: entry for name, entry in opened.checkpoint.tensors.items() if name not in dropped}
        lost = [
            n for n, e in kept.items() if n not in again or not torch.equal(tensor_of(again[n]), tensor_of(e))
        ]
        wide = [n for n, e in kept.items() if n in again and again[n].dtype != e.dtype]
    if lost or wide:
        row.refused.append(f"{case.name}: {(lost or wide)[0]} came back otherwise")
    elif kernels:
        row.asked.append(f"{case.name}: {', '.join(kernels)}; every other tensor came back bit-equal")
    return not (lost or wide or kernels)


def table(rows: dict[tuple[str, str], Row]) -> str:
    lines = [
        "| origin | family | read as | `convert --to` | cases read | largest relative difference | written back bit-equal |",
        "|---|---|---|---|---|---|---|",
    ]
    for (origin, family), row in sorted(rows.items()):
        worst = f"{row.worst:.1e}" if row.read else "–"
        lines.append(
            f"| {origin} | {family} | {', '.join(sorted(row.layouts)) or '–'} | {', '.join(f'`{n}`' for n in sorted(row.names)) or '–'} "
            f"| {row.read} / {row.cases} | {worst} | {row.written} / {row.cases - len(row.asked)} |"
        )
    total = [sum(getattr(row, part) for row in rows.values()) for part in ("read", "cases", "written")]
    asked = [text for row in rows.values() for text in row.asked]
    lines.append(
        f"| **all** | | | | {total[0]} / {total[1]} | {max(r.worst for r in rows.values()):.1e} "
        f"| {total[2]} / {total[1] - len(asked)} |"
    )
    if asked:
        why = (
            "Not counted as written back, since the case asks for another patch (`--patch-size`) and the file"
        )
        lines += [
            "",
            f"{why} then gets the kernel that was resampled to it:",
            "",
            *(f"- {text}" for text in asked),
        ]
    refused = [text for row in rows.values() for text in row.refused]
    if refused:
        lines += ["", "What falls short:", "", *(f"- {text}" for text in refused)]
    return "\n".join(lines)


def table_of_keys(lists: dict[str, Path]) -> str:
    """How many published full-size files, by origin, have a home for every tensor."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    refusals: set[str] = set()
    for file in lists.values():
        count = counts[json.loads(file.read_text(encoding="utf-8"))["origin"]]
        count[0] += 1
        if (said := refused(file)) is not None:
            count[2] += 1
            refusals.add(said)
        elif not unmapped(opened(file)):
            count[1] += 1
    lines = ["| published sizes of | lists | every tensor mapped | refused by name |", "|---|---|---|---|"]
    lines += [
        f"| {origin} | {n} | {whole} | {no or '–'} |" for origin, (n, whole, no) in sorted(counts.items())
    ]
    total = [sum(count[i] for count in counts.values()) for i in range(3)]
    lines.append(f"| **all** | {total[0]} | {total[1]} | {total[2]} ({', '.join(sorted(refusals))}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
