"""Inputs that were decoded once are read back bit for bit, or made anew; never something else."""

from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lesion_det import input_cache, prepared_images
from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import ImageRecord
from lesion_det.prepared_images import PreparedImages
from lesion_det.slices import PreparedImage
from tests.lesion_det.toy_inputs import built, files_of, require_as_decoded, write_noisy_slices
from tests.lesion_det.toy_slices import KEY, ToyDeepLesion, write_png

SINGLE = InputConfig(slices="single", pixel_mm=None, max_px=None, clip_border=False)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDeepLesion:
    return write_noisy_slices(tmp_path_factory.mktemp("toy"))


class TestWhatIsRead:
    @pytest.mark.parametrize("config", [InputConfig(), InputConfig(max_px=64), SINGLE])
    def test_it_is_what_decoding_gives(
        self, toy: ToyDeepLesion, tmp_path: Path, config: InputConfig
    ) -> None:
        require_as_decoded(built(toy, tmp_path, config), toy)
        require_as_decoded(built(toy, tmp_path, config), toy)  # from the files of another

    def test_it_is_decoded_once(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        built(toy, tmp_path)
        assert sorted(decoded) == sorted(r.file_name for r in toy.records())
        decoded.clear()
        warm = built(toy, tmp_path)
        for record in toy.records():
            assert warm[record].hu.shape[0] == 3
        assert decoded == []

    def test_without_a_cache_it_is_decoded_whenever_it_is_asked_for(
        self, toy: ToyDeepLesion, decoded: list[str]
    ) -> None:
        prepared = PreparedImages(toy.images, InputConfig())
        record = toy.records()[0]
        prepared.build([record])
        assert decoded == []
        assert prepared[record] is not prepared[record]
        assert len(decoded) == 2

    def test_it_is_a_copy_that_may_be_written(self, toy: ToyDeepLesion, tmp_path: Path) -> None:
        prepared, record = built(toy, tmp_path), toy.records()[0]
        prepared[record].hu[:] = 0
        require_as_decoded(prepared, toy)

    def test_one_folder_serves_several_configurations(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        both = [built(toy, tmp_path, config) for config in (InputConfig(), SINGLE)]
        assert len(decoded) == 10
        for prepared in (*both, built(toy, tmp_path, InputConfig()), built(toy, tmp_path, SINGLE)):
            require_as_decoded(prepared, toy)

    def test_three_equal_slices_take_the_room_of_one(
        self, toy: ToyDeepLesion, tmp_path: Path
    ) -> None:
        built(toy, tmp_path, SINGLE)
        assert files_of(tmp_path)[0].stat().st_size == 5 * 70 * 90 * 2

    def test_the_frame_is_known_without_decoding(self, toy: ToyDeepLesion, tmp_path: Path) -> None:
        record = toy.records()[0]
        assert PreparedImages(toy.images, SINGLE).known_frame(record) is None
        prepared = built(toy, tmp_path)
        assert prepared.known_frame(record) == prepared[record].frame


class TestChangedSources:
    @pytest.mark.parametrize("index", [KEY - 1, KEY, KEY + 1])
    def test_a_changed_slice_is_decoded_again(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str], index: int
    ) -> None:
        mine = ToyDeepLesion(copytree(toy.images, tmp_path / "images"), toy.coco)
        built(mine, tmp_path / "cache")
        decoded.clear()
        changed = mine.images / "000002_01_01" / f"{index:03d}.png"
        hu = cv2.imread(str(changed), cv2.IMREAD_UNCHANGED).astype(np.int32) - 32768
        write_png(changed, (hu // 2).astype(np.int16))
        require_as_decoded(built(mine, tmp_path / "cache"), mine)
        assert set(decoded) == {"000002_01_01/010.png"}

    def test_a_neighbour_that_comes_or_goes_is_noticed(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        mine = ToyDeepLesion(copytree(toy.images, tmp_path / "images"), toy.coco)
        neighbour = mine.images / "000001_01_01" / f"{KEY + 1:03d}.png"
        aside = neighbour.rename(tmp_path / "aside.png")
        alone = built(mine, tmp_path / "cache")
        require_as_decoded(alone, mine)
        aside.rename(neighbour)
        decoded.clear()
        require_as_decoded(built(mine, tmp_path / "cache"), mine)
        assert decoded == ["000001_01_01/010.png"]

    def test_another_spacing_is_another_input(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        built(toy, tmp_path)
        other = [
            ImageRecord(**(vars(r) | {"spacing_mm_zyx": (5.0, 0.7, 0.7)})) for r in toy.records()
        ]
        prepared = PreparedImages(toy.images, InputConfig(), tmp_path)
        prepared.build(other)
        assert len(decoded) == 10
        assert prepared[other[0]].frame.width_px < prepared[toy.records()[0]].frame.width_px


class TestWhatCannotBeBuilt:
    def test_a_slice_that_cannot_be_read_is_named_when_the_others_are_done(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        mine = ToyDeepLesion(copytree(toy.images, tmp_path / "images"), toy.coco)
        for patient in (2, 4):
            (mine.images / f"{patient:06d}_01_01" / "010.png").write_bytes(b"not a picture")
        with pytest.raises(
            ValueError, match=r"E-FORMAT .*000002_01_01/010\.png .*text \(and 1 more key"
        ):
            built(mine, tmp_path / "cache")
        decoded.clear()
        for patient in (2, 4):
            name = f"{patient:06d}_01_01/010.png"
            (mine.images / name).write_bytes((toy.images / name).read_bytes())
        require_as_decoded(built(mine, tmp_path / "cache"), mine)
        assert sorted(decoded) == ["000002_01_01/010.png", "000004_01_01/010.png"]

    def test_a_disk_that_is_too_small_is_refused_after_a_sample(
        self,
        toy: ToyDeepLesion,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        decoded: list[str],
    ) -> None:
        monkeypatch.setattr(prepared_images, "SAMPLE", 2)
        monkeypatch.setattr(input_cache, "disk_usage", lambda _: SimpleNamespace(free=70_000))
        with pytest.raises(
            ValueError, match=r"0\.0 GB of inputs are to be written and 0\.0 GB are free; name a "
        ):
            built(toy, tmp_path)
        monkeypatch.undo()
        require_as_decoded(built(toy, tmp_path), toy)

    def test_a_disk_that_fills_up_is_one_line(
        self, toy: ToyDeepLesion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(self: input_cache.Writer, key: str, prepared: PreparedImage) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(input_cache.Writer, "append", full)
        with pytest.raises(ValueError, match=r"cannot be written \(No space left on device\)"):
            built(toy, tmp_path)

    def test_a_folder_that_cannot_be_made_is_one_line(
        self, toy: ToyDeepLesion, tmp_path: Path
    ) -> None:
        (tmp_path / "taken").write_text("a file")
        with pytest.raises(ValueError, match=r"taken: cannot be written \(File exists\)"):
            built(toy, tmp_path / "taken")

    def test_a_stopped_build_leaves_the_rest_to_be_decoded(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        prepared = PreparedImages(toy.images, InputConfig(), tmp_path)
        answers = iter([False, False, True])  # at the lock, and after each of two inputs
        prepared.build(toy.records(), stop=lambda: next(answers))
        require_as_decoded(prepared, toy)
        decoded.clear()
        require_as_decoded(built(toy, tmp_path), toy)
        assert len(decoded) == 3
