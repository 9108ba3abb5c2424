"""Where the slices of a training lie changes no bit of what it sees."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain import groups as groups_of_slices
from ubr_pretrain.augmentation import draw_views, view_groups
from ubr_pretrain.ct import BURNED_IN
from ubr_pretrain.groups import GroupSampler
from ubr_pretrain.resident_slices import (
    SHARE,
    ResidentSlices,
    _free_bytes,
    choose_residence,
)
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import Ranks, generator
from ubr_pretrain.slice_store import StoredVolume
from ubr_pretrain.training_batches import THREADS_AHEAD, VIEWS, TrainingBatches
from ubr_pretrain.training_data import read_training_data

pytestmark = pytest.mark.usefixtures("one_thread")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
META = torch.device("meta")  # is no CPU, as a GPU is none, and every machine has it
SOME_VIEWS = {"scale": 0.2, "noise_hu": 20.0, "erase": 0.3}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    cohort = write_tiny_cohort(tmp_path_factory.mktemp("cohort"))
    return tiny_config(cohort, augmentation=SOME_VIEWS, oversample=2)


@pytest.fixture(scope="module")
def data(config, tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    return read_training_data(config, folder, Ranks(0, 1, CPU))


def test_slices_are_the_same_on_the_device_on_the_host_and_on_disk(config, data):
    sampler = GroupSampler([v.runs for v in data.training], config.g, config.m, seed=5)
    places = [
        ResidentSlices(data.training, residence, CPU) for residence in ("device", "host", "disk")
    ]
    for iteration in range(4):
        groups = sampler.draw(iteration)
        plain = data.gather(groups).hu
        for slices in places:
            found = slices.arrive(slices.fetch(groups))
            assert found.dtype == torch.int16
            assert torch.equal(found.float(), plain), slices.residence


def test_only_slices_of_the_device_are_made_there_and_a_single_volume_is_enough(data):
    one = data.training[:1]
    drawn = [(0, np.array([0, 2])), (0, np.array([1, 3]))]
    for residence, lies_on in (("device", META), ("host", CPU), ("disk", CPU)):
        slices = ResidentSlices(one, residence, META)
        fetched = slices.fetch(drawn)
        assert fetched.device == CPU
        assert slices.arrive(fetched.to(lies_on)).device == lies_on


def test_only_slices_that_wait_on_the_host_for_a_gpu_are_pinned(data, monkeypatch):
    pinned, empty = {}, torch.empty

    def without_a_gpu(*shape, device, pin_memory, **more):
        pinned[residence, waiting.type, device.type] = pin_memory
        return empty(*shape, **more)

    monkeypatch.setattr(torch, "empty", without_a_gpu)
    for waiting in (CPU, GPU):
        for residence in ("device", "host", "disk"):
            ResidentSlices(data.training, residence, waiting)
    assert pinned == {
        ("device", "cpu", "cpu"): False,
        ("host", "cpu", "cpu"): False,
        ("device", "cuda", "cuda"): False,
        ("host", "cuda", "cpu"): True,
    }


def test_places_count_through_all_volumes(config, data):
    slices = ResidentSlices(data.training, "disk", CPU)
    first = len(data.training[0].z_mm)
    places = slices.places([(0, np.array([0, 2])), (1, np.array([0, 1]))])
    assert places.tolist() == [[0, 2], [first, first + 1]]


def test_batches_are_the_same_wherever_the_slices_lie(config, data):
    batches = {
        residence: [
            *TrainingBatches(
                data, config.model_copy(update={"residence": residence}), Ranks(0, 1, CPU)
            ).of(range(3, 6))
        ]
        for residence in ("auto", "device", "host", "disk")
    }
    for residence, found in batches.items():
        told = config.model_copy(update={"residence": residence})
        lie = TrainingBatches(data, told, Ranks(0, 1, CPU)).residence
        assert lie == ("disk" if residence == "auto" else residence)
        for batch, same in zip(found, batches["disk"], strict=True):
            assert batch.iteration == same.iteration
            assert torch.equal(batch.hu, same.hu), residence
            assert torch.equal(batch.z_mm, same.z_mm)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_batch_shows_the_groups_of_its_iteration_under_views_of_their_own(config, data, seed):
    first = data.training[0]
    anchored = replace(data, known_mm={first.name: 3.0 * np.arange(len(first.z_mm))})
    seeded = config.model_copy(update={"seed": seed})
    sampler = GroupSampler([v.runs for v in data.training], config.g, config.m, seed)
    size_px, num_known = config.input.size_px, 0
    for batch in TrainingBatches(anchored, seeded, Ranks(0, 1, CPU)).of(range(1, 5)):
        drawn = anchored.gather(sampler.draw(batch.iteration))
        rngs = [generator(seed, VIEWS, batch.iteration, i) for i in range(config.g)]
        views = draw_views(config.augmentation, rngs, config.m, size_px)
        assert torch.equal(batch.hu, view_groups(drawn.hu, views, size_px))
        assert torch.equal(batch.z_mm, drawn.z_mm)
        np.testing.assert_array_equal(batch.known_mm, drawn.known_mm)
        flat = drawn.known_mm.flatten().tolist()
        assert batch.known.tolist() == [i for i, mm in enumerate(flat) if mm == mm]
        num_known += len(batch.known)
    assert 0 < num_known < 4 * config.g * config.m


def test_groups_of_volumes_with_burned_in_text_are_marked_on_the_rank_that_has_them(config, data):
    marked = replace(data.training[0], notes=("odd spacing", BURNED_IN))
    volumes = [marked, *(replace(volume, notes=("odd spacing",)) for volume in data.training[1:])]
    found = set()
    for rank in (0, 1):
        batches = TrainingBatches(replace(data, training=volumes), config, Ranks(rank, 2, CPU))
        for batch in batches.of(range(1, 5)):
            mine = batch.volumes[rank::2]
            assert batch.drawable == tuple(name != marked.name for name in mine)
            found |= {*batch.drawable}
    assert found == {True, False}


def test_views_and_groups_are_drawn_from_streams_that_never_meet():
    streams = [VIEWS, groups_of_slices._VOLUMES, groups_of_slices._SLICES]
    assert len({int(generator(5, stream, 1, 0).integers(2**62)) for stream in streams}) == 3


def test_every_kind_of_device_that_trains_has_threads_ahead_of_it():
    assert THREADS_AHEAD.keys() == {"cpu", "cuda"}


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_ranks_groups_together_are_the_draw_of_one_process(config, data, world_size):
    (whole,) = TrainingBatches(data, config, Ranks(0, 1, CPU)).of(range(7, 8))
    shared = torch.full_like(whole.hu, torch.nan)
    for rank in range(world_size):
        batches = TrainingBatches(data, config, Ranks(rank, world_size, CPU))
        (batch,) = batches.of(range(7, 8))
        assert batch.volumes == whole.volumes
        taken = shared[batches.mine.start :: batches.mine.step]
        assert taken.isnan().all()  # by no rank before
        taken.copy_(batch.hu)
    assert torch.equal(shared, whole.hu)


class OneSlice(StoredVolume):
    """The top slice of a volume."""

    @property
    def slices(self):
        return super().slices[:1]


class TestWhere:
    def free(self, gpu, host):
        return lambda device: {"cuda": gpu, "cpu": host}[device.type]

    def test_a_cpu_reads_the_files(self, data):
        assert choose_residence("auto", data.training, CPU, self.free(0, 10**12)) == "disk"

    def test_a_gpu_has_them_where_a_share_of_its_memory_is_enough(self, data):
        size = sum(volume.slices.nbytes for volume in data.training)
        enough = int(size / SHARE)
        assert enough * SHARE == size
        little = enough - 1
        chosen = [
            choose_residence("auto", data.training, GPU, self.free(*free))
            for free in ((enough, enough), (little, enough), (little, little))
        ]
        assert chosen == ["device", "host", "disk"]

    def test_slices_alone_never_take_all_that_is_free(self, data):
        size = sum(volume.slices.nbytes for volume in data.training)
        assert choose_residence("auto", data.training, GPU, self.free(size, size)) == "disk"

    def test_a_single_slice_has_a_size(self, data):
        thin = replace(data.training[0], z_mm=(0.0,))
        only = OneSlice(**vars(thin))
        size = only.slices.nbytes
        assert choose_residence("device", [only], GPU, self.free(size, 0)) == "device"
        with pytest.raises(ValueError, match="residence device"):
            choose_residence("device", [only], GPU, self.free(size - 1, 0))

    def test_what_does_not_fit_where_it_was_asked_to_go_is_refused(self, data):
        small = self.free(100, 100)
        for residence in ("device", "host"):
            with pytest.raises(ValueError, match=f"residence {residence}: the slices take 0.0 GB"):
                choose_residence(residence, data.training, GPU, small)
        assert choose_residence("disk", data.training, GPU, small) == "disk"
        size = sum(volume.slices.nbytes for volume in data.training)
        for residence, room in (("device", (size, size - 1)), ("host", (size - 1, size))):
            chosen = choose_residence(residence, data.training, GPU, self.free(*room))
            assert chosen == residence
            with pytest.raises(ValueError, match=f"residence {residence}"):
                choose_residence(residence, data.training, GPU, self.free(*room[::-1]))

    def test_free_is_what_the_system_calls_available_in_equal_parts_for_its_ranks(
        self, monkeypatch
    ):
        told = "MemTotal:  9000 kB\nMemFree:  70 kB\nMemAvailable:  6000 kB\nBuffers:  5 kB\n"
        monkeypatch.setattr(Path, "read_text", lambda *_: told)
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        assert _free_bytes(CPU) == 6_000 * 1024
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
        assert _free_bytes(CPU) == 1_500 * 1024

    def test_free_on_a_gpu_is_what_its_driver_calls_free_not_what_it_has(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3_000, 80_000))
        assert _free_bytes(GPU) == 3_000
