"""Where the slices of a training lie changes no bit of what it sees."""

import numpy as np
import pytest
import torch

from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain.groups import GroupSampler
from ubr_pretrain.resident_slices import SHARE, ResidentSlices, choose_residence
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import Ranks
from ubr_pretrain.training_batches import TrainingBatches
from ubr_pretrain.training_data import read_training_data

pytestmark = pytest.mark.usefixtures("one_thread")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
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
        for batch, same in zip(found, batches["disk"], strict=True):
            assert batch.iteration == same.iteration
            assert torch.equal(batch.hu, same.hu), residence
            assert torch.equal(batch.z_mm, same.z_mm)


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


def test_groups_that_cannot_be_shared_evenly_are_refused(config, data):
    with pytest.raises(ValueError, match="g = 4 groups cannot be shared by 3 processes"):
        TrainingBatches(data, config, Ranks(0, 3, CPU))


class TestWhere:
    def free(self, gpu, host):
        return lambda device: {"cuda": gpu, "cpu": host}[device.type]

    def test_a_cpu_reads_the_files(self, data):
        assert choose_residence("auto", data.training, CPU, self.free(0, 10**12)) == "disk"

    def test_a_gpu_has_them_where_a_share_of_its_memory_is_enough(self, data):
        size = sum(volume.slices.nbytes for volume in data.training)
        enough, little = int(size / SHARE) + 1, int(size / SHARE) - 2
        chosen = [
            choose_residence("auto", data.training, GPU, self.free(*free))
            for free in ((enough, enough), (little, enough), (little, little))
        ]
        assert chosen == ["device", "host", "disk"]

    def test_what_does_not_fit_where_it_was_asked_to_go_is_refused(self, data):
        small = self.free(100, 100)
        for residence in ("device", "host"):
            with pytest.raises(ValueError, match=f"residence {residence}: the slices take 0.0 GB"):
                choose_residence(residence, data.training, GPU, small)
        assert choose_residence("disk", data.training, GPU, small) == "disk"
        size = sum(volume.slices.nbytes for volume in data.training)
        room = self.free(size, size)
        assert choose_residence("device", data.training, GPU, room) == "device"
