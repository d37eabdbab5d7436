"""Which models are served: their names and versions, how files change, and what is refused."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, load_model, numpy_helper, save_model

from serve.bundle import seal
from serve.classifier import Classifier
from serve.description import Description
from serve.http.batcher import Plan, Timing
from serve.http.catalogue import RepositoryError, read_policy
from serve.http.limits import GIB, Limits, Memory
from serve.http.repository import Repository, UnknownModelError
from serve.http.served import Opened, Served, open_model
from serve.http.tuning import Wishes

WriteBundle = Callable[..., Path]

IMAGES = np.random.default_rng(7).integers(0, 256, (3, 8, 8, 1), np.uint8)


@contextlib.asynccontextmanager
async def opened(
    *sources: str | Path,
    policy: str = "latest",
    description: Description | None = None,
) -> AsyncIterator[Repository]:
    """A repository as the server makes it, started."""
    repository = make_repository(*sources, policy=policy, description=description)
    try:
        await repository.start()
        yield repository
    finally:
        repository.close()


def make_repository(
    *sources: str | Path, policy: str = "latest", description: Description | None = None
) -> Repository:
    memory = Memory(GIB)
    threads = ThreadPoolExecutor(1)

    def open_file(path: Path, plan: Plan | None) -> Opened:
        # Nothing is measured: how a model is run is not the matter here.
        return open_model(path, description, Wishes(), plan or Plan())

    def serve(name: str, version: int, found: Opened) -> Served:
        return Served(name, version, found, limits=Limits(), memory=memory, threads=threads)

    return Repository(list(map(str, sources)), read_policy(policy), open_file, serve)


def run(steps: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(steps())


async def answer(
    repository: Repository, name: str = "letters", version: str | None = None
) -> NDArray[np.float32]:
    served = repository.find(name, version)
    with served.admitted(len(IMAGES)):
        return await served.predict(IMAGES, 1, Timing())


def expected(path: Path) -> NDArray[np.float32]:
    return Classifier(path, threads=1).predict(IMAGES)


async def settle(repository: Repository) -> None:
    """Poll as often as it takes to see that a file no longer changes."""
    await repository.poll()
    await repository.poll()


def states(repository: Repository) -> dict[str, str]:
    """State, and reason if there is one, of `name/version`."""
    return {
        f"{entry['name']}/{entry['version']}": " ".join(
            filter(None, (entry["state"], entry["reason"]))
        )
        for entry in repository.index()
    }


def versions(repository: Repository, name: str = "letters") -> list[str]:
    return [served.version for served in repository.versions(name)]


@pytest.fixture
def write_version(folder: Path, make_bundle: WriteBundle) -> Callable[..., Path]:
    """Write a version of `letters`; its number is its seed if no other is given."""

    def write(version: int, seed: int | None = None) -> Path:
        path = folder / "letters" / str(version) / "model.onnx"
        return make_bundle(path, seed=version if seed is None else seed)

    return write


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("latest", ["10"]),
        ("latest:2", ["9", "10"]),
        ("latest:9", ["1", "2", "9", "10"]),
        ("all", ["1", "2", "9", "10"]),
        ("2", ["2"]),
        ("1,9,77", ["1", "9"]),
    ],
)
def test_the_policy_chooses_the_versions(
    folder: Path, write_version: Callable[..., Path], policy: str, served: list[str]
) -> None:
    files = {str(version): write_version(version) for version in (1, 2, 9, 10)}

    async def steps() -> None:
        async with opened(folder, policy=policy) as repository:
            assert versions(repository) == served
            assert repository.find("letters").version == served[-1]
            for version in served:
                answers = await answer(repository, version=version)
                np.testing.assert_allclose(answers, expected(files[version]), atol=1e-6)
            for version in files.keys() - served:
                with pytest.raises(UnknownModelError, match="unknown version"):
                    repository.find("letters", version)
                reason = states(repository)[f"letters/{version}"]
                assert reason == "UNAVAILABLE not chosen by the version policy"

    run(steps)


def test_a_policy_that_chooses_nothing_is_refused(folder: Path) -> None:
    async def steps() -> None:
        with pytest.raises(RepositoryError, match="not chosen by the version policy"):
            async with opened(folder, policy="5"):
                pass

    run(steps)


# Looking up.


def test_what_is_not_there_is_said_with_what_is(folder: Path, bundle: Path) -> None:
    async def steps() -> None:
        async with opened(folder, f"shoes={bundle}") as repository:
            assert sorted(repository.names) == ["letters", "shoes"]
            with pytest.raises(UnknownModelError, match="'boots'; served are: letters, shoes"):
                repository.find("boots")
            for version in ("2", "01", "x", ""):
                with pytest.raises(UnknownModelError, match=r"of model letters; served are: 1$"):
                    repository.find("letters", version)
            with pytest.raises(UnknownModelError, match="several models are served"):
                repository.find()
            await repository.unload("letters")
            assert repository.find().name == "shoes"
            await repository.unload("shoes")
            with pytest.raises(UnknownModelError, match="no model is served"):
                repository.find()
            with pytest.raises(UnknownModelError, match="served are: none"):
                repository.find("shoes")
            assert not repository.is_ready

    run(steps)


# Broken files.


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n", "ascii")


def remove(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def nan(path: Path) -> None:
    """A well-formed bundle whose model answers with what are no numbers."""
    document = Classifier(path).document
    model = load_model(path)
    for tensor in model.graph.initializer:
        if tensor.name == "offsets":
            tensor.CopyFrom(numpy_helper.from_array(np.full(10, np.nan, "f"), "offsets"))
    path.write_bytes(seal(model.SerializeToString(), document.to_json()))


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (cut, "cut off"),
    (flip, "sha256|digest|altered|expected"),
    (empty, "got 0 bytes"),
    (text, "not an ONNX model"),
    (nan, "no finite numbers"),
]


@pytest.mark.parametrize(("damage", "reason"), [*DAMAGE, (remove, "no such file")])
def test_a_file_that_is_named_must_be_whole(
    tmp_path: Path, make_bundle: WriteBundle, damage: Callable[[Path], None], reason: str
) -> None:
    good = make_bundle(tmp_path / "good.onnx")
    bad = make_bundle(tmp_path / "bad.onnx")
    damage(bad)

    async def steps() -> None:
        with pytest.raises(RepositoryError, match=reason):
            async with opened(good, bad):
                pass

    run(steps)


@pytest.mark.parametrize(("damage", "reason"), DAMAGE)
def test_a_broken_version_leaves_the_one_before(
    folder: Path,
    write_version: Callable[..., Path],
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    """At the start, while it runs, and again after it was mended."""
    one, two = folder / "letters" / "1" / "model.onnx", write_version(2)
    damage(two)

    async def steps() -> None:
        async with opened(folder) as repository:
            assert versions(repository) == ["1"]
            state = states(repository)
            assert state["letters/1"] == "READY"
            assert state["letters/2"].startswith("UNAVAILABLE ")
            three = write_version(3)
            damage(three)
            await settle(repository)
            assert versions(repository) == ["1"]
            np.testing.assert_allclose(await answer(repository), expected(one), atol=1e-6)
            refused = next(entry for entry in repository.index() if entry["version"] == "3")
            assert refused["state"] == "UNAVAILABLE"
            assert str(three) in refused["reason"]
            with pytest.raises(RepositoryError, match=reason):
                await repository.load("letters")
            assert versions(repository) == ["1"]
            write_version(3)
            await settle(repository)
            assert versions(repository) == ["3"]
            np.testing.assert_allclose(await answer(repository), expected(three), atol=1e-6)

    run(steps)


def test_a_broken_file_is_tried_once(
    folder: Path, write_version: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            flip(write_version(2))
            for _ in range(5):
                await settle(repository)
            refusals = [line for line in caplog.messages if "refused letters version 2" in line]
            assert len(refusals) == 1

    run(steps)


def test_a_folder_is_served_without_its_broken_models(
    folder: Path, make_bundle: WriteBundle, caplog: pytest.LogCaptureFixture
) -> None:
    flip(make_bundle(folder / "boots" / "1" / "model.onnx"))

    async def steps() -> None:
        async with opened(folder) as repository:
            assert repository.names == ["letters"]
            assert states(repository)["boots/1"].startswith("UNAVAILABLE ")
            assert any("refused boots version 1" in line for line in caplog.messages)
            make_bundle(folder / "boots" / "1" / "model.onnx", seed=9)
            await settle(repository)
            assert sorted(repository.names) == ["boots", "letters"]

    run(steps)


def test_a_folder_of_broken_models_alone_is_refused(folder: Path) -> None:
    flip(folder / "letters" / "1" / "model.onnx")

    async def steps() -> None:
        with pytest.raises(RepositoryError, match="letters"):
            async with opened(folder):
                pass

    run(steps)


def test_a_newer_version_that_is_no_file_leaves_the_old(
    folder: Path, write_version: Callable[..., Path]
) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            folder_instead(write_version(2))
            await settle(repository)
            assert versions(repository) == ["1"]

    run(steps)


# Changes while it runs.


def test_a_new_version_takes_over_once_it_no_longer_changes(
    folder: Path, write_version: Callable[..., Path]
) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            two = write_version(2)
            await repository.poll()
            assert versions(repository) == ["1"], "it might still be growing"
            await repository.poll()
            assert versions(repository) == ["2"]
            np.testing.assert_allclose(await answer(repository), expected(two), atol=1e-6)
            assert states(repository) == {
                "letters/1": "UNAVAILABLE not chosen by the version policy",
                "letters/2": "READY",
            }

    run(steps)


def test_a_new_model_is_taken_up(folder: Path, make_bundle: WriteBundle) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            path = make_bundle(folder / "boots" / "4" / "model.onnx", seed=4)
            await settle(repository)
            assert sorted(repository.names) == ["boots", "letters"]
            answers = await answer(repository, "boots", "4")
            np.testing.assert_allclose(answers, expected(path), atol=1e-6)

    run(steps)


@pytest.mark.parametrize("is_named", [True, False])
def test_a_changed_file_of_the_same_version_is_taken_up(
    folder: Path, write_version: Callable[..., Path], is_named: bool
) -> None:
    path = folder / "letters" / "1" / "model.onnx"

    async def steps() -> None:
        async with opened(f"letters={path}" if is_named else folder) as repository:
            before = repository.find("letters")
            write_version(1, seed=5)
            await settle(repository)
            assert versions(repository) == ["1"]
            assert repository.find("letters") is not before
            np.testing.assert_allclose(await answer(repository), expected(path), atol=1e-6)

    run(steps)


def test_an_untouched_file_is_not_opened_again(folder: Path) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            before = repository.find("letters")
            for _ in range(3):
                await settle(repository)
                await repository.load("letters")
            assert repository.find("letters") is before

    run(steps)


@pytest.mark.parametrize("replaces", [True, False])
def test_a_file_that_grows_is_never_served(
    folder: Path, write_version: Callable[..., Path], make_bundle: WriteBundle, replaces: bool
) -> None:
    """A copy that stalls long enough to look finished is refused, and taken once it is whole.

    Args:
        replaces: it is copied over the file that is served.
    """
    old = expected(folder / "letters" / "1" / "model.onnx")
    source = make_bundle(folder.parent / "source.onnx", seed=2)
    content = source.read_bytes()
    copy = folder / "letters" / ("1" if replaces else "2") / "model.onnx"
    stops = sorted({*range(0, len(content), 9), *range(len(content) - 40, len(content))})

    async def steps() -> None:
        async with opened(folder) as repository:
            before = repository.find("letters")
            copy.parent.mkdir(exist_ok=True)
            with copy.open("wb", buffering=0) as stream:
                for start, stop in zip(stops, [*stops[1:], len(content)], strict=True):
                    await settle(repository)
                    assert repository.find("letters") is before
                    stream.write(content[start:stop])
                np.testing.assert_allclose(await answer(repository), old, atol=1e-6)
                await repository.poll()
                assert repository.find("letters") is before
                await repository.poll()
            assert repository.find("letters") is not before
            assert versions(repository) == ["1" if replaces else "2"]
            np.testing.assert_allclose(await answer(repository), expected(source), atol=1e-6)

    run(steps)


def test_a_removed_version_goes_and_the_one_before_comes_back(
    folder: Path, write_version: Callable[..., Path]
) -> None:
    two = write_version(2)

    async def steps() -> None:
        async with opened(folder) as repository:
            assert versions(repository) == ["2"]
            two.unlink()
            two.parent.rmdir()
            await settle(repository)
            assert versions(repository) == ["1"]
            assert states(repository) == {"letters/1": "READY"}

    run(steps)


@pytest.mark.parametrize("with_others", [True, False])
def test_the_last_version_stays_when_its_file_is_removed(
    folder: Path, make_bundle: WriteBundle, with_others: bool
) -> None:
    """What is served does not end because a disk is gone for a moment."""
    path = folder / "letters" / "1" / "model.onnx"
    answers = expected(path)
    if with_others:
        make_bundle(folder / "boots" / "1" / "model.onnx")

    async def steps() -> None:
        async with opened(folder) as repository:
            path.unlink()
            path.parent.rmdir()
            for _ in range(3):
                await settle(repository)
            assert versions(repository) == ["1"]
            np.testing.assert_allclose(await answer(repository), answers, atol=1e-6)
            assert states(repository)["letters/1"] == "READY"

    run(steps)


def test_a_place_that_is_gone_keeps_no_other_from_changing(
    folder: Path, bundle: Path, tmp_path: Path, write_version: Callable[..., Path]
) -> None:
    boots = tmp_path / "boots.onnx"
    boots.write_bytes(bundle.read_bytes())

    async def steps() -> None:
        async with opened(folder, boots) as repository:
            boots.unlink()
            write_version(2)
            await settle(repository)
            assert versions(repository) == ["2"]
            assert versions(repository, "boots") == ["1"]
            assert states(repository)["boots/1"] == "READY"
            boots.write_bytes(bundle.read_bytes())
            await settle(repository)
            assert states(repository)["boots/1"] == "READY"

    run(steps)


def test_requests_under_way_finish_on_the_version_that_they_began_with(
    folder: Path, write_version: Callable[..., Path]
) -> None:
    one = folder / "letters" / "1" / "model.onnx"

    async def steps() -> None:
        async with opened(folder) as repository:
            served = repository.find("letters")
            with served.admitted(len(IMAGES)):
                two = write_version(2)
                await settle(repository)
                assert repository.find("letters").version == "2"
                late = await served.predict(IMAGES, 1, Timing())
            np.testing.assert_allclose(late, expected(one), atol=1e-6)
            np.testing.assert_allclose(await answer(repository), expected(two), atol=1e-6)

    run(steps)


def test_no_request_fails_while_versions_come_and_go(
    folder: Path, write_version: Callable[..., Path]
) -> None:
    known = {1: expected(folder / "letters" / "1" / "model.onnx")}

    async def steps() -> None:
        async with opened(folder, policy="latest:2") as repository:
            is_over = asyncio.Event()

            async def ask() -> int:
                count = 0
                while not is_over.is_set():
                    served = repository.find("letters")
                    with served.admitted(len(IMAGES)):
                        answers = await served.predict(IMAGES, 1, Timing())
                    np.testing.assert_allclose(answers, known[int(served.version)], atol=1e-6)
                    count += 1
                    await asyncio.sleep(0)
                return count

            asking = [asyncio.create_task(ask()) for _ in range(4)]
            for version in range(2, 7):
                known[version] = expected(write_version(version))
                await settle(repository)
                assert versions(repository) == [str(version - 1), str(version)]
            is_over.set()
            assert min(await asyncio.gather(*asking)) > 0

    run(steps)


# Loading and unloading.


def test_what_is_unloaded_stays_so_until_it_is_loaded(
    folder: Path, write_version: Callable[..., Path]
) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            await repository.unload("letters")
            assert not repository.is_ready
            assert states(repository) == {"letters/1": "UNAVAILABLE unloaded"}
            two = write_version(2)
            await settle(repository)
            assert versions(repository) == []
            assert states(repository)["letters/2"] == "UNAVAILABLE unloaded"
            with pytest.raises(UnknownModelError, match="is not loaded"):
                await repository.unload("letters")
            await repository.load("letters")
            assert versions(repository) == ["2"]
            np.testing.assert_allclose(await answer(repository), expected(two), atol=1e-6)

    run(steps)


def test_loading_takes_up_a_new_version_at_once(
    folder: Path, write_version: Callable[..., Path], make_bundle: WriteBundle
) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            write_version(2)
            await repository.load("letters")
            assert versions(repository) == ["2"]
            make_bundle(folder / "boots" / "1" / "model.onnx")
            await repository.load("boots")
            assert versions(repository, "boots") == ["1"]

    run(steps)


@pytest.mark.parametrize("name", ["boots", "", "../letters", "letters/1", "x" * 5000, "\n"])
def test_unknown_models_are_neither_loaded_nor_unloaded(folder: Path, name: str) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            for change in (repository.load, repository.unload):
                with pytest.raises(UnknownModelError) as caught:
                    await change(name)
                assert len(str(caught.value)) < 500
                assert "\n" not in str(caught.value)
            assert versions(repository) == ["1"]

    run(steps)


def test_a_version_that_the_policy_does_not_want_is_not_loaded(
    folder: Path, make_bundle: WriteBundle
) -> None:
    make_bundle(folder / "boots" / "2" / "model.onnx")

    async def steps() -> None:
        async with opened(folder, policy="1") as repository:
            with pytest.raises(RepositoryError, match="version policy"):
                await repository.load("boots")

    run(steps)


def test_changes_at_the_same_time_come_one_after_the_other(
    folder: Path, write_version: Callable[..., Path]
) -> None:
    async def steps() -> None:
        async with opened(folder) as repository:
            for version in range(2, 6):
                write_version(version)
                changes: list[Awaitable[None]] = [
                    repository.load("letters"),
                    repository.poll(),
                    repository.load("letters"),
                    repository.unload("letters"),
                    repository.poll(),
                    repository.load("letters"),
                ]
                await asyncio.gather(*changes)
                assert versions(repository) == [str(version)]

    run(steps)


# Models from elsewhere.


def test_a_foreign_model_is_served_with_its_description(tmp_path: Path) -> None:
    weights = np.random.default_rng(3).normal(0, 0.02, (64, 3)).astype("f")
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ],
        "foreign",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 8, 8, 1])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    path = tmp_path / "elsewhere.onnx"
    opset = [helper.make_opsetid("", 17)]
    save_model(helper.make_model(graph, opset_imports=opset, ir_version=8), path)

    async def steps() -> None:
        with pytest.raises(RepositoryError, match="--labels"):
            async with opened(path):
                pass
        description = Description(("x", "y", "z"), mean=(0.5,), std=(0.25,))
        async with opened(path, description=description) as repository:
            answers = await answer(repository, "elsewhere")
            assert repository.find("elsewhere").document.class_names == ("x", "y", "z")
            np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
            direct = Classifier(path, threads=1, description=description).predict(IMAGES)
            np.testing.assert_allclose(answers, direct, atol=1e-6)

    run(steps)


def test_links_are_followed_when_they_change(folder: Path, make_bundle: WriteBundle) -> None:
    """A version that is a link, as `current -> releases/7`, is switched with its target."""
    old = make_bundle(folder.parent / "releases" / "old.onnx", seed=11)
    new = make_bundle(folder.parent / "releases" / "new.onnx", seed=12)
    link = folder / "letters" / "2" / "model.onnx"
    link.parent.mkdir()
    link.symlink_to(old)

    async def steps() -> None:
        async with opened(folder) as repository:
            np.testing.assert_allclose(await answer(repository), expected(old), atol=1e-6)
            other = link.with_name("other")
            other.symlink_to(new)
            other.replace(link)
            await settle(repository)
            np.testing.assert_allclose(await answer(repository), expected(new), atol=1e-6)

    run(steps)
