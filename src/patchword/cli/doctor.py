"""`patchword doctor`: check the installation and the machine, and suggest fixes."""

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
# Runs in a separate process, because a broken torch can crash the interpreter that imports it.
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
    """A requirement of patchword and the installed version; `fault` is empty if it is satisfied."""

    name: str
    needed: str
    found: str
    fault: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show versions, devices and limits, and the command that fixes any problem.

    Exits with 0 if patchword can run, and with 2 if something must be fixed first.
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
    facts["mend"] = fixing_command(packages, torch_fault)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _print(facts)
    ctx.exit(WRONG if facts["faults"] else FINE)


def own_package() -> Package:
    """patchword itself. If it only runs from source, its version and requirements are unknown."""
    try:
        return Package(name="patchword", needed="", found=metadata.version("patchword"), fault="")
    except metadata.PackageNotFoundError:
        fault = "not installed, only its source is on Python's path"
        return Package(name="patchword", needed="", found="", fault=fault)


def required_packages() -> list[Package]:
    """Compare each dependency that patchword declares with the installed version."""
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
    """torch's own facts, and the fault that prevents it from working (or "")."""
    probe = subprocess.run([sys.executable, "-c", _PROBE_TORCH], capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return json.loads(probe.stdout.splitlines()[-1]), ""
    last_line = (probe.stderr.strip().splitlines() or ["it exited without a message"])[-1]
    return {}, f"torch cannot be imported: {last_line}"


def torchvision_state() -> str:
    """Whether torchvision is installed and matches torch; patchword itself never imports it."""
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return "not installed (not needed)"
    probe = [sys.executable, "-c", "import torchvision"]
    if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return f"{version} (not needed)"
    return (
        f"{version} does not match the installed torch; patchword does not need it, but other programs may: "
        f"{_pip()} install --upgrade torch torchvision"
    )


def machine_facts() -> dict[str, Any]:
    """Cores and memory available to this process, not those built into the machine."""
    machine = importlib.import_module("patchword.machine")
    return {
        "cores": os.cpu_count(),
        "threads_granted": machine.granted_threads(),
        "memory_mib": machine.memory_limit_bytes() // 2**20,
    }


def fixing_command(packages: list[Package], torch_fault: str) -> str:
    """The one command that fixes every fault, or "" if there is none."""
    if any(p.name == "patchword" for p in packages):  # installs its dependencies too
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
        table.add_row("bfloat16", "supported by the CPU" if torch["bfloat16_cpu"] else "emulated by the CPU")
    machine = facts["machine"]
    table.add_row("threads", f"{machine['threads_granted']} of {machine['cores']} cores available now")
    table.add_row("memory", f"{machine['memory_mib'] / 1024:.1f} GiB available")
    console.print(table)
    if not facts["faults"]:
        console.print("\nNo problems found.")
        return
    console.print("\n[bold]Problems[/bold]")
    for fault in facts["faults"]:
        console.print(f"  {fault}", markup=False)
    console.print(f"  fix: {facts['mend']}", soft_wrap=True, markup=False)
