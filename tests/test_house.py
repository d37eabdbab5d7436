"""The rules of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("serve", "models", "export", "pipeline")
MAY_IMPORT = {
    "serve": {"serve"},
    "models": {"models"},
    "export": {"export", "serve", "models"},
    "pipeline": set(PACKAGES),
}
TRAINING_LIBRARIES = {
    "keras",
    "matplotlib",
    "onnx",
    "optuna",
    "pydantic",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "tf2onnx",
}


def imported(file: Path) -> set[str]:
    """Top-level names of every import in a file, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add((node.module or "").partition(".")[0])
    return names


def files_of(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    for file in files_of(package):
        forbidden = imported(file) & set(PACKAGES) - MAY_IMPORT[package]
        assert not forbidden, f"{file.relative_to(ROOT)} imports {forbidden}"


def test_serve_stands_without_the_training_libraries() -> None:
    for file in files_of("serve"):
        assert not imported(file) & TRAINING_LIBRARIES, file.relative_to(ROOT)


def test_every_package_folder_is_in_the_distribution() -> None:
    declared = (ROOT / "pyproject.toml").read_text("utf-8")
    for package in PACKAGES:
        for init in (ROOT / package).rglob("__init__.py"):
            name = ".".join(init.parent.relative_to(ROOT).parts)
            assert f'"{name}"' in declared, f"{name} is missing in pyproject.toml"
