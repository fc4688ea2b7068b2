#!/usr/bin/env python3
"""role_readme.py [--check]: writes each role's README.md from its meta/argument_specs.yml; with --check it only compares.

A variable is described once, in the argument spec. That the defaults there are those of defaults/main.yml is for a test to say (tests/it/deploy.rs).
"""

import json
import pathlib
import sys

import yaml

ROLES = pathlib.Path(__file__).resolve().parent / "roles"
COMMAND = ".venv/bin/python ansible/role_readme.py"


def text(value):
    """Returns a description as one paragraph, and as Markdown shows it in a table."""
    words = " ".join(value) if isinstance(value, list) else value
    return words.strip().replace("<", "\\<").replace("|", "\\|").replace("*", "\\*")


def code(value):
    """Returns a value as it is written with -e, in a code span."""
    shown = value if isinstance(value, str) else json.dumps(value)
    return f"`{shown}`".replace("|", "\\|") if shown else "empty"


def kind(option):
    return f"{option['type']} of {option['elements']}" if "elements" in option else option["type"]


def default(option):
    return "none: it must be given" if option.get("required") else code(option["default"])


def choices(option):
    return ", ".join(code(choice) for choice in option.get("choices", []))


def readme(role, spec):
    lines = [f"# {role}", "", "<!-- Made from meta/argument_specs.yml by ansible/role_readme.py. -->", "", f"{spec['short_description']}.", ""]
    lines += [f"- {text(point)}" for point in spec["description"]]
    lines += ["", "| variable | type | default | choices | meaning, unit and bounds |", "| --- | --- | --- | --- | --- |"]
    for name, option in spec["options"].items():
        lines.append(f"| `{name}` | {kind(option)} | {default(option)} | {choices(option)} | {text(option['description'])} |")
    return "\n".join(lines) + "\n"


def main():
    check, wrong = sys.argv[1:] == ["--check"], []
    for folder in sorted(path for path in ROLES.iterdir() if path.is_dir()):
        spec = yaml.safe_load((folder / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]
        file, wanted = folder / "README.md", readme(folder.name, spec)
        if not file.exists() or file.read_text(encoding="utf-8") != wanted:
            if check:
                wrong.append(f"{file.relative_to(ROLES.parent.parent)} differs from its argument spec: run {COMMAND}")
            else:
                file.write_text(wanted, encoding="utf-8")
    if wrong:
        sys.exit("\n".join(wrong))


main()
