"""Rules of the whole repository that no single room can hold: arrows, empty packages, licences, what stays out of it.

The arrows themselves are written down in pyproject.toml ([tool.importlinter]).
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from detection.requirements import normalise, read_constraints

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("datasets", "detection", "firmware")
TEXT = {"", *".py .c .h .s .ld .md .toml .yaml .yml .txt .sh .json .html .cfg .mk .cff .csv".split()}
# Written in halves so that this file does not contain what it looks for.
REGISTRIES = ["pypi." + "org", "python" + "hosted.org", "download.py" + "torch.org", "npmjs." + "org"]
# Packages under the AGPL that train or run detectors, by their import or distribution names.
AGPL = {"ultralytics", "esp-detection", "albumentationsx", "yolov5", "yolov8", "ultralyticsplus", "pymupdf", "fitz"}


@cache
def repository_files() -> tuple[Path, ...]:
    """Tracked files and new ones that git does not ignore; without git, everything outside hidden folders and runs."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        names = listed.stdout.decode().split("\0")
    else:
        everything = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        skipped = {"runs", "data", "build", "__pycache__"}
        names = [str(path) for path in everything if not any(p in skipped or p.startswith(".") for p in path.parts)]
    return tuple(sorted(ROOT / name for name in names if name and (ROOT / name).is_file()))


def room_files(suffix: str = ".py") -> list[Path]:
    return [path for path in repository_files() if path.suffix == suffix and path.relative_to(ROOT).parts[0] in ROOMS]


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def matches(pattern: str, files: list[Path], flags: re.RegexFlag = re.NOFLAG) -> list[str]:
    """`file:line: text` of every line that holds the pattern."""
    regex = re.compile(pattern, flags)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in files
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if regex.search(line)
    ]


def text_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix.lower() in TEXT]


def imported(node: ast.AST) -> list[str]:
    """Names that an import statement loads; empty for every other node and for relative imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return [node.module]
    return []


def test_import_contracts_hold() -> None:
    """The arrows between the rooms; the output names the line that breaks one."""
    linter = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_packages_are_folders_with_an_empty_init() -> None:
    """An import of one module loads that module and no other."""
    full = [path for path in room_files() if path.name == "__init__.py" and path.stat().st_size]
    assert full == []
    on_device = {"targets", "camera", "rehearsal"}  # code of other interpreters
    folders = {path.parent for path in room_files() if not on_device & set(path.parts)}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_torchvision_is_imported_where_it_is_used() -> None:
    """At the top of a module it would be needed by everyone who needs anything of that module."""
    top = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in repository_files()
        if path.suffix == ".py"
        for node in ast.parse(text_of(path)).body
        if any(name.split(".")[0] == "torchvision" for name in imported(node))
    ]
    assert top == []


@pytest.mark.parametrize("module", "config arch detections metrics.voc metrics.coco metrics.wider evaluate".split())
def test_module_loads_without_torch(module: str) -> None:
    """The contract read from the sources, proven by running: nothing on the way loads torch."""
    program = f"import sys, detection.{module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"detection.{module} loads torch"


def test_no_agpl_package() -> None:
    """Nor TensorFlow, but for the one file that runs in a process of its own."""
    assert AGPL & read_constraints().keys() == set()
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in repository_files()
        if path.suffix == ".py" and path != ROOT / "benchmarks" / "keras_models.py"
        for node in ast.walk(ast.parse(text_of(path)))
        for name in imported(node)
        if normalise(name.split(".")[0]) in AGPL | {"tensorflow", "keras"}
    ]
    assert found == []


def test_no_path_of_one_machine_and_no_package_host() -> None:
    hosts = "|".join(re.escape(name) for name in REGISTRIES)
    assert matches(rf"(?<![\w.])/wo{'rk'}/|{hosts}|(index-url|find-links)\s*=?\s*\w+://", text_files()) == []


def test_git_ignores_nothing_that_belongs_here() -> None:
    """What a pattern of .gitignore swallows is missing from every clone."""
    folders = [ROOT / name for name in (*ROOMS, "configs", "tests", "zoo", "benchmarks", "docs")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix in TEXT]
    own = [str(path.relative_to(ROOT)) for path in files if not {"build", "__pycache__"} & set(path.parts)]
    asked = subprocess.run(
        ["git", "check-ignore", "--no-index", *own], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if asked.returncode == 128:
        pytest.skip("not a git repository")
    assert asked.stdout.splitlines() == []


def test_nothing_is_left_unfinished() -> None:
    """No marker of unfinished work in code; what is missing is said in README.md, where a user looks."""
    code = [path for path in repository_files() if path.suffix in {".py", ".c", ".h", ".s", ".sh"}]
    assert matches(rf"\b(TO{'DO'}|FIX{'ME'}|XX{'X'})\b|raise NotImpl{'ementedError'}", code) == []


def test_runtime_stands_alone() -> None:
    """C99 without heap, console or board: what a chip runs knows nothing of who runs it."""
    runtime = ROOT / "firmware" / "runtime"
    files = [path for path in room_files(".c") + room_files(".h") if path.is_relative_to(runtime)]
    assert files, "no C files under firmware/runtime"
    assert matches(r"#\s*include\s*[<\"](stdio|stdlib|malloc|math)\.h|#\s*include.*targets/", files) == []
    assert matches(r"\b(malloc|calloc|realloc|free|printf|puts|exit|abort)\s*\(", files) == []


def test_kernels_know_no_model() -> None:
    """Kernels see rows and parameters; the model's handle is the executor's."""
    kernels = ROOT / "firmware" / "runtime" / "kernels"
    files = [path for path in room_files(".c") + room_files(".h") if path.is_relative_to(kernels)]
    assert files, "no C files under firmware/runtime/kernels"
    assert matches(r"\btess_t\b", files) == []
