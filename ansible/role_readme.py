#!/usr/bin/env python3
"""role_readme.py [--check]: writes each role's README.md from its meta/argument_specs.yml; with --check it only compares.

A variable is described once, in the argument spec. This also fails where the spec and defaults/main.yml do not name the same variables with the
same defaults.
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


def differences(role, spec, defaults):
    """Says where the spec and the defaults contradict each other."""
    options = spec["options"]
    for name in sorted(options.keys() | defaults.keys()):
        if name not in options:
            yield f"{role}: {name} has a default and is not in meta/argument_specs.yml"
        elif options[name].get("required"):
            if name in defaults:
                yield f"{role}: {name} is required and has a default"
        elif name not in defaults:
            yield f"{role}: {name} is in meta/argument_specs.yml and has no default in defaults/main.yml"
        elif options[name]["default"] != defaults[name]:
            yield f"{role}: {name} is {options[name]['default']!r} in meta/argument_specs.yml and {defaults[name]!r} in defaults/main.yml"


def main():
    check, wrong = sys.argv[1:] == ["--check"], []
    for folder in sorted(path for path in ROLES.iterdir() if path.is_dir()):
        spec = yaml.safe_load((folder / "meta/argument_specs.yml").read_text(encoding="utf-8"))["argument_specs"]["main"]
        defaults = yaml.safe_load((folder / "defaults/main.yml").read_text(encoding="utf-8")) or {}
        wrong += differences(folder.name, spec, defaults)
        file, wanted = folder / "README.md", readme(folder.name, spec)
        if not file.exists() or file.read_text(encoding="utf-8") != wanted:
            if check:
                wrong.append(f"{file.relative_to(ROLES.parent.parent)} differs from its argument spec: run {COMMAND}")
            else:
                file.write_text(wanted, encoding="utf-8")
    if wrong:
        sys.exit("\n".join(wrong))


main()
