"""What the patch needs of vLLM, on packages that are made up. The real releases are in tests/vllm."""

from pathlib import Path

import pytest

from backend_patch.contract import (
    FILES,
    PLACES,
    QUEUE,
    Support,
    check,
    missing,
    parameter_misfit,
    support_of,
    version_of,
)
from backend_patch.outline import Signature
from tests.backend_patch.fake_package import write_package


def test_a_package_with_everything_fits(tmp_path: Path) -> None:
    hooks = check(write_package(tmp_path))
    assert [hook.name for hook in hooks] == [place.name for place in PLACES]
    assert [hook for hook in hooks if not hook.fits] == []


@pytest.mark.parametrize("name", [place.name for place in PLACES if place.implemented is None])
def test_each_place_is_missed(tmp_path: Path, name: str) -> None:
    """By its name, and by no other."""
    (misfit,) = [hook for hook in check(write_package(tmp_path, without=name)) if not hook.fits]
    assert misfit.name == name
    assert "not in" in misfit.detail
    assert [misfit] == list(missing((misfit,))) or misfit.is_optional


def test_a_new_abstract_method_is_told(tmp_path: Path) -> None:
    """Our waiting queue could not be made."""
    package = write_package(tmp_path)
    with (package / QUEUE).open("a") as queue:
        queue.write("    @abstractmethod\n    def reorder(self): ...\n")
    (misfit,) = missing(check(package))
    assert (misfit.name, misfit.detail.rpartition(" ")[2]) == ("RequestQueue", "reorder")


def test_a_file_that_moved_is_missed(tmp_path: Path) -> None:
    package = write_package(tmp_path)
    (package / "v1/request.py").rename(package / "v1/requests.py")
    details = {hook.detail for hook in check(package) if not hook.fits}
    assert details == {"v1/request.py is missing or cannot be read"}


def test_without_an_optional_one_only_its_use_is_lost(tmp_path: Path) -> None:
    hooks = check(write_package(tmp_path, without="FreeKVCacheBlockQueue.prepend_n"))
    assert missing(hooks) == ()
    (misfit,) = [hook for hook in hooks if not hook.fits]
    assert misfit.detail.endswith("without it: no recycling")


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        (Signature(("request",), frozenset({"request"})), True),
        (Signature(("request", "delay"), frozenset({"request"})), True),
        (Signature(("request",), frozenset()), True),
        (Signature(("req",), frozenset({"req"})), False),
        (Signature((), frozenset()), False),
        (Signature(("delay", "request"), frozenset({"request", "delay"})), False),
        (Signature(("request", "delay"), frozenset({"request", "delay"})), False),
        (Signature(("request",), frozenset({"request", "by_name"})), False),
        (None, False),
    ],
)
def test_parameters(found: Signature | None, fits: bool) -> None:
    """New ones are no harm as long as nobody must give them."""
    assert (parameter_misfit(("request",), found) == "") is fits


@pytest.mark.parametrize(
    ("version", "support"),
    [
        ("0.27.3", Support.REFUSED),
        ("0.28.0", Support.BEST_EFFORT),
        ("0.30.1", Support.BEST_EFFORT),
        ("0.31.0", Support.SUPPORTED),
        ("0.33.2.post1", Support.SUPPORTED),
        ("0.34.0", Support.UNTRIED),
        ("1.0.0", Support.UNTRIED),
        ("dev", Support.UNTRIED),
        ("0.x", Support.UNTRIED),
        (None, Support.UNTRIED),
    ],
)
def test_support(version: str | None, support: Support) -> None:
    assert support_of(version) is support


def test_version(tmp_path: Path) -> None:
    assert version_of(write_package(tmp_path, "0.33.0")) == "0.33.0"
    assert version_of(tmp_path) is None


def test_files_are_those_of_a_wheel() -> None:
    """What whoever fetches single files of a release has to fetch."""
    assert {"vllm/_version.py", "vllm/v1/core/sched/scheduler.py"} < set(FILES)
