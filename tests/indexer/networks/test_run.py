"""indexer.networks.run: devices, normalised batches against torchvision's transform, features of any batch
size."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from indexer.data.images import fit_image
from indexer.errors import SettingsError
from indexer.networks.load import load_network
from indexer.networks.run import (
    Batches,
    PretrainedNetwork,
    choose_device,
    extract_features,
    full_precision,
    move_to_device,
)
from indexer.networks.torchvision import models
from indexer.records import DEFAULT_PROBE, InputTransform

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def probe() -> PretrainedNetwork:
    return load_network(DEFAULT_PROBE)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "CPU"])
def test_unknown_device_is_refused(name: str):
    message = f"no device is named {name!r}; expected auto, cpu, cuda or cuda:N"
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "meta", "mps", "cpu:1"])
def test_absent_device_is_refused(name: str):
    message = f"this machine has no device {name!r}; use auto or cpu"
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        choose_device(name)


@pytest.mark.parametrize(
    ("count", "present", "absent"), [(0, ["cpu"], ["cuda"]), (2, ["cpu", "cuda", "cuda:1"], ["cuda:2"])]
)
def test_devices_are_those_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, count: int, present: list[str], absent: list[str]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert choose_device("auto").type == ("cuda" if count else "cpu")
    assert [str(choose_device(name)) for name in present] == present
    for name in absent:
        with pytest.raises(SettingsError, match="this machine has no device"):
            choose_device(name)


def test_network_on_an_absent_device_is_refused(probe: PretrainedNetwork):
    with pytest.raises(SettingsError, match="no device is named 'tpu'"):
        move_to_device(probe, "tpu")


@pytest.mark.parametrize(
    "transform",
    [InputTransform(64, 48), InputTransform(40, 40, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))],
    ids=["ImageNet", "other"],
)
def test_input_is_that_of_torchvision(probe: PretrainedNetwork, transform: InputTransform):
    """From the decoded image to the network: resized, cropped, scaled and normalised alike."""
    pixels = np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    preset = type(models.ResNet18_Weights.IMAGENET1K_V1.transforms())
    expected = preset(
        resize_size=transform.resize, crop_size=transform.crop, mean=transform.mean, std=transform.std
    )(image)
    found = replace(probe, transform=transform).normalize(
        torch.from_numpy(fit_image(image, transform)[None].copy())
    )
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-6)


def test_batches_are_the_images_in_order(probe: PretrainedNetwork):
    batches = Batches(probe, IMAGES, np.arange(7), 3)
    for _ in range(2):  # as often as one likes
        images, labels = zip(*batches, strict=True)
        assert [len(batch) for batch in images] == [3, 3, 1]
        assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in images)
        torch.testing.assert_close(torch.cat(images), probe.normalize(torch.from_numpy(IMAGES)), rtol=0, atol=0)
        assert torch.cat(labels).tolist() == list(range(7))


def test_batches_follow_an_order(probe: PretrainedNetwork):
    order = np.array([4, 0, 6])
    images, labels = zip(*Batches(probe, IMAGES, np.arange(7), 2, order), strict=True)
    assert torch.cat(labels).tolist() == [4, 0, 6]
    expected = probe.normalize(torch.from_numpy(IMAGES[order]))
    torch.testing.assert_close(torch.cat(images), expected, rtol=0, atol=0)


def test_full_precision_lasts_as_long_as_its_context():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    with full_precision():
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == (False, True)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_features_do_not_depend_on_the_batch_size(probe: PretrainedNetwork, batch_size: int):
    one_by_one = [probe.body(probe.normalize(torch.from_numpy(image[None])))[0] for image in IMAGES]
    found = extract_features(probe, IMAGES, batch_size=batch_size)
    assert (found.shape, found.dtype) == ((7, probe.num_features), np.float32)
    np.testing.assert_allclose(found, torch.stack(one_by_one), rtol=1e-4, atol=1e-5)


def test_progress_counts_samples(probe: PretrainedNetwork):
    reports = []
    extract_features(probe, IMAGES, batch_size=3, progress=lambda *report: reports.append(report))
    assert reports == [("features", 3, 7), ("features", 6, 7), ("features", 7, 7)]


def test_features_leave_the_network_as_it_was(probe: PretrainedNetwork):
    before = {name: value.clone() for name, value in probe.body.state_dict().items()}
    extract_features(probe, IMAGES)
    changed = [name for name, value in probe.body.state_dict().items() if not torch.equal(value, before[name])]
    assert not changed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_features_agree_on_cpu_and_cuda():
    network = load_network(DEFAULT_PROBE)
    on_cpu = extract_features(network, IMAGES)
    move_to_device(network, "cuda")
    on_cuda = extract_features(network, IMAGES)
    assert next(network.body.parameters()).device.type == "cuda"
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=0.01, atol=0.01 * np.abs(on_cpu).max())
