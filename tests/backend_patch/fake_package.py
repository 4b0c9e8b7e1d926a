"""A package that has every place of the contract, and nothing else."""

from collections import defaultdict
from pathlib import Path

from backend_patch.contract import PLACES, VERSION_FILE, Place


def write_package(folder: Path, version: str | None = "0.32.0", without: str | None = None) -> Path:
    """``without`` names a place to leave out."""
    package = folder / "vllm"
    by_file: dict[str, list[Place]] = defaultdict(list)
    for place in PLACES:
        by_file[place.file].append(place)
    for file, places in by_file.items():
        path = package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source([place for place in places if place.name != without]))
    if version is not None:
        (package / VERSION_FILE).write_text(f"# generated\n__version__ = version = '{version}'\n")
    return package


def source(places: list[Place]) -> str:
    owners: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        owners[place.name.rpartition(".")[0]].append(place)
    top = owners.pop("", [])
    lines = [definition(place, "") for place in top if place.name not in owners]
    for owner, members in owners.items():
        lines += [f"class {owner}:", *(definition(place, "    ", "self, ") for place in members)]
    return "\n".join(lines) + "\n"


def definition(place: Place, indent: str, receiver: str = "") -> str:
    name = place.name.rpartition(".")[2]
    if place.parameters is None:
        return f"{indent}{name} = None"
    return f"{indent}def {name}({receiver}{', '.join(place.parameters)}): ..."
