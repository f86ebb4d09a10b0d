"""The house rules of DESIGN section 2, as laws over the tracked tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("platform", "runtime", "kernels", "adapters", "migrations")
CODE = (*ROOMS, "tests", "benchmarks", "examples")
BANNED_NAMES = {"utils", "helpers", "common", "base", "misc", "manager", "v2"}


def python_files(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py") if "__pycache__" not in p.parts)


def test_no_python_file_is_longer_than_500_lines():
    long = {str(p.relative_to(ROOT)): n for p in python_files(*CODE) if (n := len(p.read_text().splitlines())) > 500}
    assert not long


def test_no_file_or_folder_has_a_name_that_says_nothing():
    assert not [p for p in python_files(*CODE) if {p.stem, p.parent.name} & BANNED_NAMES]


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_top_folders_are_not_packages_by_themselves(room: str):
    """platform/__init__.py would shadow the standard library's module; tests/**/__init__.py breaks importlib mode."""
    assert not (ROOT / room / "__init__.py").exists()
    if room == "tests":
        assert not list((ROOT / room).rglob("__init__.py"))
        assert not (ROOT / room / "platform").exists()


def test_the_import_tree_is_relative_links():
    for room in ROOMS:
        link = ROOT / ".src" / "tenantry" / room
        assert link.is_symlink()
        assert link.readlink() == Path("../..") / room


def test_the_environment_is_read_in_one_file():
    reads = [p for p in python_files(*ROOMS) if re.search(r"\bos\.environ\b|\bgetenv\(", p.read_text())]
    assert reads == [ROOT / "platform" / "core" / "settings.py"]


CODE_CARRIERS = {
    ("pickle",), ("cPickle",), ("dill",), ("cloudpickle",), ("marshal",), ("shelve",),
}  # fmt: skip
SINKS = {"eval", "exec", "__import__"}
SINK_ATTRIBUTES = {("torch", "load"), ("yaml", "load"), ("importlib", "import_module")}


@pytest.mark.parametrize("path", python_files(*ROOMS), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_format_that_carries_code(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if (a.name.split(".")[0],) in CODE_CARRIERS]
        if isinstance(node, ast.ImportFrom):
            assert ((node.module or "").split(".")[0],) not in CODE_CARRIERS
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                assert node.func.id not in SINKS
            if isinstance(node.func, ast.Attribute):
                assert node.func.attr not in ("recv_pyobj", "send_pyobj")
                if isinstance(node.func.value, ast.Name):
                    assert (node.func.value.id, node.func.attr) not in SINK_ATTRIBUTES


@pytest.mark.parametrize("path", python_files(*ROOMS), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_owns(path: Path):
    if path.name == "__init__.py":
        return
    assert ast.get_docstring(ast.parse(path.read_text())), "a module docstring of two to five lines"


def test_sql_text_is_never_built_from_an_f_string():
    for path in python_files("platform", "migrations"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "text":
                assert not any(isinstance(a, ast.JoinedStr) for a in node.args), path


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
def test_files_named_in_documents_exist(document: str):
    text = (ROOT / document).read_text()
    rooms = "|".join((*CODE, "admin-ui"))
    named = set(re.findall(rf"`((?:{rooms})/[\w/.-]+)`", text))
    assert named
    assert not sorted(n for n in named if not (ROOT / n.split(":")[0]).exists())


def test_every_package_has_its_sentence_in_the_architecture():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = {p.parent.relative_to(ROOT) for p in python_files(*ROOMS) if p.name == "__init__.py"}
    assert not sorted(str(p) for p in packages if f"`{p}/" not in text and f"`{p}`" not in text)


def test_the_gateway_process_never_loads_torch():
    heavy = {"torch", "triton", "numba", "transformers"}
    code = f"import sys, tenantry.platform.app; sys.exit(bool({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / ".src", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_there_is_one_migration_head():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1


def test_no_registry_host_or_machine_path_is_written_down():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    endings = (".py", ".md", ".toml", ".txt", ".sh", ".json", ".ini", "Makefile")
    texts = [ROOT / t for t in listing.stdout.split("\n") if t.endswith(endings)]
    pattern = re.compile(r"pypi\.org|files\.pythonhosted|registry\.npmjs|deb\.debian|/work/(main|shared)|/root/")
    me = Path(__file__).resolve()
    assert not [str(t) for t in texts if t.is_file() and t != me and pattern.search(t.read_text(errors="replace"))]
