"""How the source is laid out: names that `python scheduler/main.py` can live with,
and a word at the top of everything.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "scheduler"
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_module_directly_in_the_package_hides_one_of_the_standard_library():
    # `python scheduler/main.py` puts that folder first on sys.path.
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names > {"main", "app", "domain"}
    assert not names & sys.stdlib_module_names


def test_every_folder_with_code_is_a_package():
    assert not [name_of(path) for path in MODULES if not (path.parent / "__init__.py").exists()]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_and_package_says_what_it_is(path):
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert said, f"{name_of(path)} has no docstring"
    assert len(said.split()) >= 3


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_name_says_nothing(path):
    assert path.stem not in {"utils", "util", "helpers", "helper", "manager", "common", "misc", "base"}


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_main_run_by_its_path_from_anywhere_is_the_run_command(tmp_path, flag):
    command = [sys.executable, str(PACKAGE / "main.py"), flag]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: sd-scheduler")
    assert "run" in done.stdout.splitlines()[0]
    assert "Example:\n    sd-scheduler run -c " in done.stdout
    assert "--config" in done.stdout


def test_main_puts_the_repository_first_on_the_path_and_not_its_own_folder(tmp_path):
    # Else `import logging` in a dependency could find a module of ours, and `import scheduler` another's.
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{str(PACKAGE / 'main.py')!r}, '--help']\n"
        f"sys.path[0] = {str(PACKAGE)!r}\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "print('PATH', sys.path[0], sys.modules['scheduler'].__file__)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == f"PATH {ROOT} {PACKAGE / '__init__.py'}"
