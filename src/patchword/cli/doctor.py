"""`patchword doctor`: what is installed, what the machine grants, and what would mend a fault."""

import importlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from patchword.cli.console import make_console

WRONG, FINE = 2, 0
# In a process of its own: a broken torch can end the interpreter that imports it.
_PROBE_TORCH = """
import json, torch
from torch.backends import mps
print(json.dumps({
    "version": torch.__version__,
    "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    "mps": mps.is_available(),
    "bfloat16_cpu": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    "product": float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()),
}))
"""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A requirement of patchword and what is there of it; `fault` is empty when all is well."""

    name: str
    needed: str
    found: str
    fault: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Print versions, devices and threads, and the one command that mends what is wrong.

    Exit code 0 when patchword can work, 2 when something must be mended first.
    """
    packages = required_packages()
    own = own_package()
    if own.fault:
        packages = [own, *packages]
    torch_facts, torch_fault = probe_torch()
    facts: dict[str, Any] = {
        "patchword": own.found or "not installed",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": [asdict(p) for p in packages],
        "torch": torch_facts,
        "torchvision": torchvision_state(),
        "machine": machine_facts(),
        "faults": [f"{p.name}: {p.fault}" for p in packages if p.fault]
        + ([torch_fault] if torch_fault else []),
    }
    facts["mend"] = mending_command(packages, torch_fault)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _print(facts)
    ctx.exit(WRONG if facts["faults"] else FINE)


def own_package() -> Package:
    """patchword itself: run from its source alone, nothing says its version or what it needs."""
    try:
        return Package(name="patchword", needed="", found=metadata.version("patchword"), fault="")
    except metadata.PackageNotFoundError:
        fault = "not installed, its source alone is on Python's path"
        return Package(name="patchword", needed="", found="", fault=fault)


def required_packages() -> list[Package]:
    """Each dependency that the installed patchword declares, against what is installed."""
    packages = []
    try:
        declared = metadata.requires("patchword") or []
    except metadata.PackageNotFoundError:
        return []
    for requirement in declared:
        if "extra ==" in requirement:
            continue
        name, needed = _split_requirement(requirement)
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages.append(Package(name=name, needed=needed, found="", fault="not installed"))
            continue
        too_old = needed and _as_numbers(found) < _as_numbers(needed)
        fault = f"{found} is older than {needed}" if too_old else ""
        packages.append(Package(name=name, needed=needed, found=found, fault=fault))
    return packages


def _split_requirement(requirement: str) -> tuple[str, str]:
    match = re.match(r"([A-Za-z0-9._-]+)\s*(?:>=\s*([0-9][0-9.]*))?", requirement)
    assert match, requirement
    return match[1], match[2] or ""


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def probe_torch() -> tuple[dict[str, Any], str]:
    """What torch says of itself, and the fault that keeps it from working (or "")."""
    answer = subprocess.run([sys.executable, "-c", _PROBE_TORCH], capture_output=True, text=True, check=False)
    if answer.returncode == 0:
        return json.loads(answer.stdout.splitlines()[-1]), ""
    last_words = (answer.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    return {}, f"torch does not import: {last_words}"


def torchvision_state() -> str:
    """Whether a torchvision is there and fits; patchword itself never imports it."""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return "not installed (not needed)"
    probe = [sys.executable, "-c", "import torchvision"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return f"{version} (not needed)"
    return (
        f"{version} does not fit the installed torch; patchword does not need it, other programs do: "
        f"{_pip()} install --upgrade torch torchvision"
    )


def machine_facts() -> dict[str, Any]:
    """Cores and memory as granted to this process, not as built into the machine."""
    machine = importlib.import_module("patchword.machine")
    return {
        "cores": os.cpu_count(),
        "threads_granted": machine.granted_threads(),
        "memory_mib": machine.memory_limit_bytes() // 2**20,
    }


def mending_command(packages: list[Package], torch_fault: str) -> str:
    """The one command that mends every fault, or "" when there is none."""
    if any(p.name == "patchword" for p in packages):  # brings what it needs with it
        return f"{_pip()} install {shlex.quote(str(Path(__file__).parents[3]))}"
    wanted = [f"{p.name}>={p.needed}" if p.needed else p.name for p in packages if p.fault]
    if torch_fault and not any(p.name == "torch" and p.fault for p in packages):
        return f"{_pip()} install --force-reinstall torch"
    return f"{_pip()} install --upgrade " + " ".join(f'"{w}"' for w in wanted) if wanted else ""


def _pip() -> str:
    return f"{os.path.relpath(sys.executable) if sys.prefix != sys.base_prefix else 'python3'} -m pip"


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    console = make_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("patchword", facts["patchword"])
    table.add_row("python", f"{facts['python']} on {facts['platform']}")
    for package in facts["packages"]:
        state = package["found"] or "–"
        note = (
            f"[red]{package['fault']}[/red]" if package["fault"] else f"(needs {package['needed']} or newer)"
        )
        table.add_row(package["name"], f"{state} {note}")
    table.add_row("torchvision", facts["torchvision"])
    torch = facts["torch"]
    if torch:
        devices = [*torch["cuda"], *(["Apple GPU (mps)"] if torch["mps"] else []), "CPU"]
        table.add_row("devices", ", ".join(devices))
        table.add_row("bfloat16", "the CPU has it" if torch["bfloat16_cpu"] else "the CPU emulates it")
    machine = facts["machine"]
    table.add_row("threads", f"{machine['threads_granted']} of {machine['cores']} cores are free to use now")
    table.add_row("memory", f"{machine['memory_mib'] / 1024:.1f} GiB granted")
    console.print(table)
    if not facts["faults"]:
        console.print("\nAll is well.")
        return
    console.print("\n[bold]To mend[/bold]")
    for fault in facts["faults"]:
        console.print(f"  {fault}", markup=False)
    console.print(f"  fix: {facts['mend']}", soft_wrap=True, markup=False)
