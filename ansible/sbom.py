#!/usr/bin/env python3
"""sbom.py TARGET FILE: writes what the binary for TARGET is made of, as CycloneDX.

cargo-cyclonedx describes the crates. It also lists some that only tests bring in, so they are held against what cargo itself builds for the target,
and against the checksums in Cargo.lock.
"""

import json
import os
import pathlib
import subprocess
import sys
import tomllib

SPECIFICATION = "1.5"


def run(*command: str) -> str:
    """Runs a command; its standard output."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def built(target: str) -> set[tuple[str, str]]:
    """Name and version of every crate that cargo links into the binary, or runs to expand its macros."""
    tree = run("cargo", "tree", "--locked", "--edges=normal", f"--target={target}", "--prefix=none", "--format={p}")
    words = (line.split() for line in tree.splitlines() if line)
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def described(target: str) -> dict:
    """What cargo-cyclonedx says, without the folder that it was said in."""
    name = "sbom-in-the-making"
    run("cargo", "cyclonedx", "--quiet", "--format=json", f"--target={target}", "--no-build-deps",
        f"--spec-version={SPECIFICATION}", f"--override-filename={name}")
    path = pathlib.Path(f"{name}.json")
    text = path.read_text(encoding="utf-8")
    path.unlink()
    return json.loads(text.replace(f"path+file://{os.getcwd()}#", ""))


def locked() -> dict[tuple[str, str], str]:
    """The checksum of every crate in Cargo.lock."""
    lock = tomllib.loads(pathlib.Path("Cargo.lock").read_text(encoding="utf-8"))
    return {(it["name"], it["version"]): it.get("checksum", "") for it in lock["package"]}


def main() -> None:
    """Writes the document, or says what does not agree."""
    target, file = sys.argv[1:]
    wanted, checksums, document = built(target), locked(), described(target)
    own = (document["metadata"]["component"]["name"], document["metadata"]["component"]["version"])
    identity = lambda it: (it["name"], it["version"])  # noqa: E731

    document["components"] = [it for it in document["components"] if identity(it) in wanted]
    kept = {it["bom-ref"] for it in document["components"]} | {document["metadata"]["component"]["bom-ref"]}
    document["dependencies"] = [
        {**it, "dependsOn": [other for other in it.get("dependsOn", []) if other in kept]}
        for it in document["dependencies"] if it["ref"] in kept
    ]

    missing = wanted - {own} - {identity(it) for it in document["components"]}
    if missing:
        sys.exit(f"cargo builds what the SBOM does not list: {sorted(missing)}")
    for component in document["components"]:
        said = [it["content"] for it in component.get("hashes", []) if it["alg"] == "SHA-256"]
        if said != [checksums.get(identity(component))]:
            sys.exit(f"{identity(component)} is {said} in the SBOM and {checksums.get(identity(component))} in Cargo.lock")
    pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(file).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{file}: {len(document['components'])} components, as cargo builds for {target} and Cargo.lock pins")


main()
