"""Damage, kills and company: a cache gives what was written, or the input is made anew."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesion_det import input_cache
from lesion_det.det_config import InputConfig
from lesion_det.prepared_images import PreparedImages
from tests.lesion_det.toy_inputs import built, files_of, require_as_decoded, write_noisy_slices
from tests.lesion_det.toy_slices import ToyDeepLesion


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDeepLesion:
    return write_noisy_slices(tmp_path_factory.mktemp("toy"))


class TestDamage:
    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        max_examples=25,
    )
    @given(
        which=st.sampled_from([0, 1]),
        place=st.floats(0, 1, exclude_max=True),
        bit=st.integers(0, 7),
    )
    def test_a_flipped_bit_is_made_anew_and_never_used(
        self,
        toy: ToyDeepLesion,
        tmp_path_factory: pytest.TempPathFactory,
        which: int,
        place: float,
        bit: int,
    ) -> None:
        cache = tmp_path_factory.mktemp("cache")
        built(toy, cache)
        file = files_of(cache)[which]
        data = bytearray(file.read_bytes())
        data[int(place * len(data))] ^= 1 << bit
        file.write_bytes(data)
        require_as_decoded(built(toy, cache), toy)
        require_as_decoded(built(toy, cache), toy)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
    @given(pixels=st.floats(0, 1), index=st.floats(0, 1))
    def test_files_that_are_cut_anywhere_are_completed(
        self,
        toy: ToyDeepLesion,
        tmp_path_factory: pytest.TempPathFactory,
        pixels: float,
        index: float,
    ) -> None:
        cache = tmp_path_factory.mktemp("cache")
        built(toy, cache)
        for file, part in zip(files_of(cache), (pixels, index), strict=True):
            os.truncate(file, int(part * file.stat().st_size))
        require_as_decoded(built(toy, cache), toy)
        require_as_decoded(built(toy, cache), toy)

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_lost_file_is_made_anew(self, toy: ToyDeepLesion, tmp_path: Path, which: int) -> None:
        built(toy, tmp_path)
        files_of(tmp_path)[which].unlink()
        require_as_decoded(built(toy, tmp_path), toy)

    def test_only_what_is_damaged_is_decoded_again(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        built(toy, tmp_path)
        decoded.clear()
        pixels = files_of(tmp_path)[0]
        data = bytearray(pixels.read_bytes())
        data[0] ^= 1
        pixels.write_bytes(data)
        built(toy, tmp_path)
        assert decoded == ["000001_01_01/010.png"]
        built(toy, tmp_path)
        assert len(decoded) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from lesion_det import prepared_images
from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import read_ground_truth
from lesion_det.input_cache import Writer

append, count = Writer.append, 0
def die_in_the_third(self, key, prepared):
    global count
    count += 1
    if count == 3:
        self._pixels.write(prepared.hu.tobytes()[:1001])
        self._pixels.flush()
        self._index.write(b'{"key":"')
        self._index.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return append(self, key, prepared)
Writer.append = die_in_the_third
images, coco, cache = map(Path, sys.argv[1:])
prepared = prepared_images.PreparedImages(images, InputConfig(), cache)
prepared.build(read_ground_truth(coco).images)
"""


class TestSeveralProcesses:
    def test_a_killed_build_goes_on_where_it_was(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        arguments = [str(toy.images), str(toy.coco / "train.json"), str(tmp_path)]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, timeout=120)
        assert done.returncode == -signal.SIGKILL
        require_as_decoded(built(toy, tmp_path), toy)
        assert len(decoded) == 3

    def test_two_that_start_together_decode_everything_once(
        self, toy: ToyDeepLesion, tmp_path: Path, decoded: list[str]
    ) -> None:
        both = [PreparedImages(toy.images, InputConfig(), tmp_path) for _ in range(2)]
        threads = [threading.Thread(target=p.build, args=(toy.records(),)) for p in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(decoded) == 5
        for prepared in both:
            require_as_decoded(prepared, toy)

    def test_who_waits_can_be_stopped_and_decodes_for_itself(
        self,
        toy: ToyDeepLesion,
        tmp_path: Path,
        decoded: list[str],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with input_cache.InputCache(tmp_path).writer(lambda: False):
            until = time.monotonic() + 0.2
            prepared = PreparedImages(toy.images, InputConfig(), tmp_path)
            prepared.build(toy.records(), stop=lambda: time.monotonic() > until)
        assert decoded == []
        assert f"waiting for the process that fills {tmp_path}" in capsys.readouterr().err
        require_as_decoded(prepared, toy)
        assert len(decoded) == 10

    def test_who_needs_nothing_new_does_not_wait(self, toy: ToyDeepLesion, tmp_path: Path) -> None:
        built(toy, tmp_path)
        with input_cache.InputCache(tmp_path).writer(lambda: False):
            require_as_decoded(built(toy, tmp_path), toy)
