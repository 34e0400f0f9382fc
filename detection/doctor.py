"""What is installed, what is missing, and the way out: `make doctor`, or `python3 -m detection.doctor` before set-up.

Nothing is installed or changed here, and only the standard library is imported: every package is tried in a process of
its own, so that a broken one cannot take this report with it. Exit code 1 only where a core piece is missing (Python
3.11, the core packages); without the rest a part of the suite works, and the report says which part does not.
"""

from __future__ import annotations  # a Python that is too old must get as far as saying so

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from detection.requirements import CORE, read_constraints, read_groups, requirement_name
from firmware.openmv.micropython import GET, MicroPythonError, find_tree, require_tools

PROBE_TIMEOUT_S = 120
SETUP = "make setup"
# Optional groups, and what does not work without them.
PURPOSE = {"train": "training and the float predictor", "export": "writing and judging .tflite", "dev": "make test"}
MODULES = {  # where the module to import is not the package's name
    "opencv-python-headless": "cv2",
    "pyyaml": "yaml",
    "pillow": "PIL",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-micro": "tflite_micro",
    "pytest-xdist": "xdist",
    "import-linter": "importlinter",
    "faster-coco-eval": "faster_coco_eval",
}
DEBIAN_TOOLS = "sudo apt-get install --no-install-recommends {}"
TORCH_PROBE = """
import torch
cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device"
print(f"{torch.get_num_threads()} threads, {cuda}")
"""
HOST_PROGRAM = '#include <stdio.h>\nint main(void) { puts("tessera"); return 0; }\n'
FUZZ_PROGRAM = """
#include <stddef.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { return data != 0 && size == 1 ? 0 : 0; }
"""
# A vector table, and a reset handler that ends the emulator by semihosting with exit code 0.
BOARD_PROGRAM = """
#include <string.h>
void reset(void);
__attribute__((section(".vectors"), used)) void *const vectors[] = {(void *)0x20010000, (void *)reset};
void reset(void) {
    register int operation __asm__("r0") = 0x18, reason __asm__("r1") = 0x20026;
    __asm__ volatile("bkpt 0xAB" : : "r"(operation), "r"(reason));
    for (;;) {}
}
"""
BOARD_FLAGS = (
    "-mcpu=cortex-m7 -mthumb -nostartfiles --specs=nano.specs -Wl,--section-start=.vectors=0 -Wl,-Ttext=0x100 "
    "-Wl,--entry=reset -Wl,--no-warn-rwx-segments"
).split()
EMULATOR = "qemu-system-arm -M mps2-an500 -nographic -monitor none -serial none -semihosting-config enable=on".split()


class Finding(NamedTuple):
    """One line of the report. `problem` is empty where all is well; `required`: without it the exit code is 1."""

    piece: str
    state: str
    problem: str = ""
    way_out: str = ""
    required: bool = False


class Outcome(NamedTuple):
    """What a command said: `output` is its standard output, or the last line of its errors where it failed."""

    ok: bool
    output: str


def run_command(command: list[str], cwd: str | None = None) -> Outcome:
    """Run a command with a time limit; a missing program, a failure and a hang are all outcomes, never exceptions."""
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Outcome(False, str(error))
    if done.returncode == 0:
        return Outcome(True, done.stdout.strip())
    lines = (done.stderr or done.stdout).strip().splitlines()
    return Outcome(False, lines[-1] if lines else f"exit code {done.returncode}")


def check_python() -> Finding:
    """The interpreter that runs this report."""
    state = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < (3, 11):  # noqa: UP036  (this runs before set-up, on whatever python3 is)
        return Finding("python", state, "older than 3.11", "PYTHON=python3.12 make setup", required=True)
    inside = sys.prefix != sys.base_prefix
    return Finding("python", state) if inside else Finding("python", state, "not .venv's interpreter", SETUP)


def installed_version(name: str) -> str | None:
    """Version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_package(name: str, group: str, pin: str | None) -> Finding:
    """One package: installed, at its pinned version, and importable (tried in a process of its own)."""
    required, way_out = group == CORE, SETUP
    version = installed_version(name)
    if version is None:
        return Finding(name, "missing", f"needed for {PURPOSE.get(group, 'everything')}", way_out, required)
    tried = run_command([sys.executable, "-c", f"import {MODULES.get(name, name).replace('-', '_')}"])
    if not tried.ok:
        return Finding(name, version, f"cannot be imported: {tried.output}", f"rm -r .venv; {SETUP}", required)
    # "2.14.1+cpu" is a build of 2.14.1.
    if pin is not None and pin not in (version, version.split("+")[0]):
        return Finding(name, version, f"constraints.txt has {pin}", way_out)
    return Finding(name, version)


def check_torch() -> Finding:
    """Threads and GPU, as torch sees them."""
    tried = run_command([sys.executable, "-c", TORCH_PROBE])
    if not tried.ok:
        return Finding("torch device", "unknown", tried.output, SETUP)
    return Finding("torch device", tried.output)


def check_host_compiler(folder: str) -> Finding:
    """Compile and run a C program on this machine."""
    compiler = next((name for name in ("gcc", "cc", "clang") if shutil.which(name)), None)
    way_out = DEBIAN_TOOLS.format("gcc libc6-dev")
    if compiler is None:
        return Finding("host C compiler", "missing", "no host library (predictor `host`)", way_out)
    version = run_command([compiler, "-dumpfullversion", "-dumpversion"]).output
    Path(folder, "host.c").write_text(HOST_PROGRAM, encoding="utf-8")
    built = run_command([compiler, "host.c", "-o", "host"], cwd=folder)
    ran = run_command([str(Path(folder, "host"))]) if built.ok else built
    if ran.output != "tessera":
        return Finding("host C compiler", f"{compiler} {version}", f"a trivial program failed: {ran.output}", way_out)
    return Finding("host C compiler", f"{compiler} {version}, a program compiled and ran")


def check_cross_compiler(folder: str) -> Finding:
    """Compile a bare-metal program for a Cortex-M7; its ELF file stays in `folder` for the emulator."""
    way_out = DEBIAN_TOOLS.format("gcc-arm-none-eabi libnewlib-arm-none-eabi")
    if shutil.which("arm-none-eabi-gcc") is None:
        return Finding("Arm compiler", "missing", "no firmware, no predictor `emulator`", way_out)
    version = run_command(["arm-none-eabi-gcc", "-dumpfullversion"]).output
    Path(folder, "board.c").write_text(BOARD_PROGRAM, encoding="utf-8")
    built = run_command(["arm-none-eabi-gcc", *BOARD_FLAGS, "board.c", "-o", "board.elf"], cwd=folder)
    if not built.ok:
        return Finding("Arm compiler", version, f"a trivial program failed: {built.output}", way_out)
    return Finding("Arm compiler", f"arm-none-eabi-gcc {version}, a program compiled")


def check_emulator(folder: str) -> Finding:
    """Ask QEMU for its version, and let it run the program that check_cross_compiler left in `folder`."""
    way_out = DEBIAN_TOOLS.format("qemu-system-arm")
    if shutil.which("qemu-system-arm") is None:
        return Finding("emulator", "missing", "no predictor `emulator`", way_out)
    asked = run_command(["qemu-system-arm", "--version"])
    state = asked.output.splitlines()[0].removeprefix("QEMU emulator version ") if asked.ok else "unknown"
    if not asked.ok:
        return Finding("emulator", state, asked.output, way_out)
    if not Path(folder, "board.elf").exists():
        return Finding("emulator", f"qemu-system-arm {state}, not tried: no program to run")
    ran = run_command([*EMULATOR, "-kernel", "board.elf"], cwd=folder)
    if not ran.ok:
        return Finding("emulator", state, f"a trivial program failed on mps2-an500: {ran.output}", way_out)
    return Finding("emulator", f"qemu-system-arm {state}, a program ran on mps2-an500")


def check_fuzzer(folder: str) -> Finding:
    """Link a libFuzzer program with clang."""
    way_out = DEBIAN_TOOLS.format("clang libclang-rt-dev")
    if shutil.which("clang") is None:
        return Finding("C fuzzer", "missing", "no fuzzing of the C runtime", way_out)
    version = run_command(["clang", "-dumpversion"]).output
    Path(folder, "fuzz.c").write_text(FUZZ_PROGRAM, encoding="utf-8")
    built = run_command(["clang", "-fsanitize=fuzzer,address,undefined", "fuzz.c", "-o", "fuzz"], cwd=folder)
    if not built.ok:
        return Finding("C fuzzer", f"clang {version}", f"a trivial program failed: {built.output}", way_out)
    return Finding("C fuzzer", f"clang {version}, a libFuzzer program compiled")


def check_c_lint() -> Finding:
    """The programs that `make lint` takes for C files."""
    missing = [name for name in ("cppcheck", "clang-tidy") if shutil.which(name) is None]
    if missing:
        return Finding("C lint", "missing", f"make lint leaves out {', '.join(missing)}", DEBIAN_TOOLS.format(" ".join(missing)))
    return Finding("C lint", f"{run_command(['cppcheck', '--version']).output}, clang-tidy")


def check_micropython() -> Finding:
    """MicroPython's source tree, which OpenMV packages and their rehearsal are built from, and the tools for that."""
    try:
        return Finding("MicroPython", f"source in {require_tools(rehearsal=True)}")
    except MicroPythonError as error:
        tree = find_tree()
        what, _, way_out = str(error).partition(": ")
        return Finding("MicroPython", str(tree or "missing"), f"no OpenMV package: {what}", way_out if tree else GET)


def check_tools() -> Iterator[Finding]:
    """Compilers, emulator, fuzzer and linters, tried in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tessera-doctor-") as folder:
        yield check_host_compiler(folder)
        yield check_cross_compiler(folder)
        yield check_emulator(folder)
        yield check_fuzzer(folder)
        yield check_c_lint()
        yield check_micropython()


def check_packages() -> list[Finding]:
    """Every package of the default groups, in the order of pyproject.toml, two at a time."""
    pins = read_constraints()
    wanted = [(requirement_name(line), group) for group, lines in read_groups().items() for line in lines]
    wanted = [(name, group) for name, group in wanted if group == CORE or group in PURPOSE]
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(lambda item: check_package(*item, pins.get(item[0])), wanted))


def format_report(findings: list[Finding]) -> str:
    """The table, the way out of each problem, and one line of verdict."""
    piece_width = max(len(finding.piece) for finding in findings)
    lines = []
    for finding in findings:
        mark = "ok" if not finding.problem else "MISSING" if finding.required else "--"
        problem = f"  <- {finding.problem}" if finding.problem else ""
        lines.append(f"{mark:7} {finding.piece:{piece_width}}  {finding.state}{problem}")
    ways: dict[str, list[str]] = {}
    for finding in findings:
        if finding.problem:
            ways.setdefault(finding.way_out, []).append(finding.piece)
    lines += [""] + [f"{way}   # {', '.join(pieces)}" for way, pieces in ways.items()]
    return "\n".join([*lines, verdict(findings)])


def verdict(findings: list[Finding]) -> str:
    """One line: is everything there, and if not, how much is missing."""
    broken = [finding.piece for finding in findings if finding.problem and finding.required]
    if broken:
        return f"doctor: nothing works yet, core pieces are missing: {', '.join(broken)}"
    optional = [finding.piece for finding in findings if finding.problem]
    if optional:
        return f"doctor: usable; {len(optional)} of {len(findings)} pieces need attention: {', '.join(optional)}"
    return f"doctor: all {len(findings)} pieces are in place"


def main() -> int:
    """Print the report; 1 where a core piece is missing."""
    findings = [check_python()]
    if not findings[0].required:
        findings += [*check_packages(), check_torch(), *check_tools()]
    print(format_report(findings))
    return int(any(finding.problem and finding.required for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
