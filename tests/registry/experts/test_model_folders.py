"""Folders of models as the hub gives them: found, named, and read without loading anything."""

import json
import os
import re

import pytest
from builders_models import NUM_PARAMS, TENSORS, safetensors, write_model

from registry.errors import InvalidRecordError
from registry.experts.model_folders import FolderFacts, find_folders, read_folder


def names_in(root):
    return [name for name, _ in find_folders(root)]


def refuse(folder, message):
    with pytest.raises(InvalidRecordError, match=rf"^{re.escape(f'{folder}{message}')}"):
        read_folder(folder)


def test_folders_are_named_by_the_way_there(tmp_path):
    write_model(tmp_path / "vit")
    write_model(tmp_path / "acme" / "vit")
    write_model(tmp_path / "acme" / "vit" / "onnx")  # a part of a model
    write_model(tmp_path / "a" / "b" / "c")  # too deep
    write_model(tmp_path / ".cache" / "hidden")
    (tmp_path / "linked").symlink_to(tmp_path / "vit")
    (tmp_path / "notes").mkdir()
    (tmp_path / "meant").mkdir()
    (tmp_path / "meant" / "README.md").write_text("# Soon")
    assert names_in(tmp_path) == ["acme.vit", "meant", "vit"]
    assert names_in(tmp_path / "acme" / "vit") == ["vit"]


def test_the_cache_of_the_hub_is_read_in_place(tmp_path):
    """The snapshots of the cache are links to blobs."""
    cached = tmp_path / "models--acme--vit-tiny"
    for revision in ("a" * 40, "b" * 40):
        snapshot = cached / "snapshots" / revision
        write_model(snapshot)
        (snapshot / "config.json").rename(cached / f"blob{revision}")
        (snapshot / "config.json").symlink_to(cached / f"blob{revision}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("b" * 40)
    assert find_folders(tmp_path) == [("acme.vit-tiny", cached / "snapshots" / ("b" * 40))]
    assert read_folder(cached / "snapshots" / ("b" * 40)).num_params == NUM_PARAMS
    (cached / "refs" / "main").write_text("../../../etc")
    with pytest.raises(InvalidRecordError, match="there is no model"):
        find_folders(tmp_path)


def test_a_folder_without_models_is_told(tmp_path):
    message = f"{tmp_path}: there is no model; expected README.md, config.json and model.safetensors"
    with pytest.raises(InvalidRecordError, match=rf"^{re.escape(message)}"):
        find_folders(tmp_path)
    with pytest.raises(InvalidRecordError, match="none: the folder cannot be read: No such file"):
        find_folders(tmp_path / "none")


@pytest.mark.parametrize(
    ("processor", "config", "expected"),
    [
        ({"do_center_crop": True, "crop_size": {"height": 24, "width": 24}, "size": 32}, {}, 24),
        ({"do_center_crop": False, "crop_size": 24, "size": {"shortest_edge": 32}}, {}, 32),
        ({"size": {"height": 32, "width": 48}}, {"image_size": 40}, 40),
        ({}, {"vision_config": {"image_size": 56}, "image_size": 8}, 56),
        ({"image_processor": {"size": 64}}, {}, 64),
        ({"size": True}, {"image_size": [8, 8]}, None),
        ({"size": -3}, {}, None),
    ],
)
def test_the_input_size_is_what_the_processor_makes(tmp_path, processor, config, expected):
    folder = write_model(tmp_path / "vit", processor=processor, config=config)
    assert read_folder(folder) == FolderFacts(NUM_PARAMS, expected, "")


def test_a_tokenizer_without_a_processor_is_a_text_encoder(tmp_path):
    folder = write_model(tmp_path / "bert", processor=None)
    assert read_folder(folder) == FolderFacts(NUM_PARAMS, None, "mean")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert read_folder(folder).pooling == "cls"
    (folder / "config.json").write_text('{"is_encoder_decoder": true}')
    refuse(folder, ": is an encoder with a decoder")
    (folder / "tokenizer.json").unlink()
    refuse(folder, ": there is neither preprocessor_config.json")


def test_weights_in_shards_are_added_up(tmp_path):
    folder = write_model(tmp_path / "vit")
    for number, name in enumerate(TENSORS):
        (folder / f"model-{number}.safetensors").write_bytes(safetensors({name: TENSORS[name]}))
    (folder / "model.safetensors").unlink()
    index = {name: f"model-{number}.safetensors" for number, name in enumerate(TENSORS)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert read_folder(folder).num_params == NUM_PARAMS
    (folder / "model-1.safetensors").unlink()
    refuse(folder, ": there is no file model-1.safetensors, which its index names")
    for bad in ({"a": "../vit/model-0.safetensors"}, {"a": "/etc/passwd"}, {}, [], None):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": bad}))
        refuse(folder, "/model.safetensors.index.json: names no files in this folder")


def header(**entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


DAMAGED = "/model.safetensors: is no safetensors file, or is damaged or cut off"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", DAMAGED),
        (bytes(8), DAMAGED),
        ((2**63).to_bytes(8, "little") + b"{}", DAMAGED),
        (safetensors()[:-1], DAMAGED),
        (safetensors()[:40], DAMAGED),
        (b"\x02" + bytes(7) + b"[]", DAMAGED),
        (header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + bytes(4), DAMAGED),
        (header(a={"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}) + bytes(4), DAMAGED),
        (header(a={"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}) + bytes(4), DAMAGED),
        (header(a={"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}) + bytes(4), DAMAGED),
        (header(a=1), DAMAGED),
        ((6 * 10**4).to_bytes(8, "little") + b"[" * (6 * 10**4), DAMAGED),
        (header(), ": its weights hold no parameters"),
        (LFS, "/model.safetensors: stands for a file of Git LFS; fetch it with `git lfs pull`"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, content, message):
    folder = write_model(tmp_path / "vit")
    (folder / "model.safetensors").write_bytes(content)
    refuse(folder, message)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{" * 10**5, b'{"a": ' * 10**5])
def test_damaged_configs_are_refused(tmp_path, content):
    folder = write_model(tmp_path / "vit")
    (folder / "config.json").write_bytes(content)
    refuse(folder, "/config.json: holds no JSON object")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", ": there is no file config.json; expected a model of the hub"),
        ("model.safetensors", ": there is no file model.safetensors; weights of other kinds are not read"),
        ("preprocessor_config.json", ": there is neither preprocessor_config.json"),
    ],
)
def test_missing_files_are_told(tmp_path, name, message):
    folder = write_model(tmp_path / "vit")
    (folder / name).unlink()
    refuse(folder, message)
    os.mkfifo(folder / name)  # is never opened: nobody may ever write to it
    refuse(folder, message)


def test_an_adapter_is_told(tmp_path):
    folder = write_model(tmp_path / "lora")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    refuse(folder, ": holds an adapter; expected a whole model with model.safetensors")
