"""cppcheck over all C files and clang-tidy over those of the chip, where they are installed: `python -m firmware.lint`.

What they look for is in cppcheck.txt and .clang-tidy beside this file. Nothing is looked at twice: the outcome is kept under
firmware/build by a hash of everything that goes into it.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

from firmware.cli import run
from firmware.openmv.micropython import find_tree
from firmware.openmv.package import module_flags

ROOM = Path(__file__).resolve().parent
ROOT = ROOM.parent
CLEAN = ROOM / "build" / "lint"
FOLDERS = ("firmware/compiler", "firmware/runtime", "firmware/link", "firmware/targets", "firmware/openmv", "tests/fuzz")
RUNTIME = ("-Ifirmware/link", "-Ifirmware/runtime", "-Ifirmware/runtime/kernels")
CPPCHECK = (
    *("cppcheck", "--quiet", "--std=c99", "--platform=unix32", "--enable=warning,style,performance,portability"),
    *("--inline-suppr", "--suppressions-list=firmware/cppcheck.txt", "--error-exitcode=1"),
    *("--template={file}:{line}: {id}: {message}", *RUNTIME, "-Ifirmware/targets/common", "-Ifirmware/targets/stm32"),
    "-DNORETURN=__attribute__((noreturn))",  # MicroPython's, whose headers are not looked at
)
BOARD = (
    *("--target=thumbv7em-none-eabihf", "-mcpu=cortex-m7", "-Ifirmware/targets/common", "-Ifirmware/targets/stm32"),
    *("-DAPP_LINE_BYTES=4096", '-DAPP_BOARD=""', '-DLINK_FIRMWARE=""'),  # what build.py gives
)


CAMERA = ("--target=thumbv7em-none-eabihf", "-mcpu=cortex-m4", "-Ifirmware/runtime")


class LintError(ValueError):
    """The C files have a fault; the message says where."""


def c_files(root: Path = ROOT) -> list[Path]:
    """All C files, those of boards and of the fuzzers included."""
    return sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.c"))


def commands(root: Path = ROOT) -> list[list[str]]:
    """What to run: cppcheck once, clang-tidy for each kind of program; nothing of what is not installed."""
    files = [str(path.relative_to(root)) for path in c_files(root)]
    boards = [name for name in files if name.startswith("firmware/targets/")]
    camera = [name for name in files if name.startswith("firmware/openmv/")]
    # what runs on a chip; programs for this machine use stdio and signals, which these checks are against
    portable = [name for name in files if name.startswith("firmware/") and name not in boards + camera and "/host/" not in name]
    found = [[*CPPCHECK, *files]] if shutil.which("cppcheck") else []
    if shutil.which("clang-tidy"):
        tidy = ["clang-tidy", "--quiet", "--config-file=firmware/.clang-tidy"]
        headers = _newlib()
        found.append([*tidy, *portable, "--", "-std=c99", *RUNTIME])
        if headers and boards:
            found.append([*tidy, *boards, "--", "-std=c99", *BOARD, *RUNTIME, "-isystem", headers])
        if headers and camera and (tree := find_tree()):
            found.append([*tidy, *camera, "--", *module_flags(tree), *CAMERA, "-isystem", headers])
    return found


def _newlib() -> str:
    """Folder of the C library's headers for boards, empty without a cross compiler."""
    if shutil.which("arm-none-eabi-gcc") is None:
        return ""
    told = subprocess.run(["arm-none-eabi-gcc", "-E", "-Wp,-v", "-xc", "/dev/null"], capture_output=True, text=True)
    folders = [line.strip() for line in told.stderr.splitlines() if line.startswith(" ")]
    return next((folder for folder in folders if Path(folder, "newlib.h").exists()), "")


def check(root: Path = ROOT, clean: Path = CLEAN) -> None:
    """Raise LintError with the tools' words unless all files are clean."""
    wanted = commands(root)
    state = hashlib.sha256(repr(wanted).encode())
    headers = [path for folder in FOLDERS for path in (root / folder).rglob("*.h")]
    for path in [*c_files(root), *sorted(headers), root / "firmware" / ".clang-tidy", root / "firmware" / "cppcheck.txt"]:
        state.update(path.read_bytes())
    stamp = clean / state.hexdigest()
    if stamp.exists():
        return
    for command in wanted:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "error:" in line or command[0] == "cppcheck"]
            raise LintError(f"{command[0]}: {'; '.join(lines) or done.stderr.strip()}")
    clean.mkdir(parents=True, exist_ok=True)
    stamp.touch()


if __name__ == "__main__":
    run(check)
