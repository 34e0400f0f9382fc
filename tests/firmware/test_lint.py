"""firmware/lint.py names a fault in a C file and looks at nothing twice. The files themselves: `make lint`."""

import shutil
from pathlib import Path

import pytest

from firmware.lint import FOLDERS, LintError, check

ROOT = Path(__file__).resolve().parents[2]
FAULTS = {
    "cppcheck": "int fault(void);\nint fault(void) { int a[2] = {0, 1}; return a[2]; }\n",
    "clang-tidy": "int fault(int a);\nint fault(int a) { if (a) return 2; return 3; }\n",
}


@pytest.mark.parametrize("tool", FAULTS)
def test_a_fault_is_named(tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool}: apt-get install {tool}")
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(parents=True)
    for rules in (".clang-tidy", "cppcheck.txt"):
        shutil.copy(ROOT / "firmware" / rules, tmp_path / "firmware" / rules)
    file = tmp_path / "firmware" / "runtime" / "fault.c"
    file.write_text(FAULTS[tool])
    with pytest.raises(LintError, match=f"{tool}: .*fault.c:2"):
        check(tmp_path, tmp_path / "clean")
    file.write_text("")
    for _ in range(2):
        check(tmp_path, tmp_path / "clean")
        assert len(list((tmp_path / "clean").iterdir())) == 1
