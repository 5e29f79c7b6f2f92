"""The one door to timm and to Hugging Face transformers, which come with the extra ``hub``.

Nothing here runs code that comes with weights: remote code is refused, and weights are safetensors or, of
timm's older files, checkpoints read without executing pickled objects. Downloads and their cache are the
libraries' own; HF_HUB_OFFLINE=1 makes them look in the cache only.

Axes: N samples, F features, L positions, H and W pixels.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from indexer.errors import UnknownNameError, WeightsError
from indexer.networks.loaders import Loader
from indexer.networks.run import Body, count_params, drop_unfilled_pooler
from indexer.networks.tokens import MASK, TOKENS, Tokenizer, tokenizer_hash
from indexer.networks.weights import build_unfilled, misfit, read_weights, without_prefix
from indexer.records import InputTransform, TextPooling, TextTransform

MAX_TOKENS = 256
"""Tokens of a text by default: attention costs their square, and most texts have fewer."""

_SHIFTED = {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text", "xlm-roberta-xl"}
_ELSEWHERE = "if it is not at hand, fetch it on a machine with a network and name the"


def load_timm(loader: Loader) -> Body:
    """A network of timm, with its own weights by name or with those of a file, without its head.

    Raises:
        UnknownNameError: If timm has no such architecture or weights.
        WeightsError: If timm is not installed, or the weights cannot be had or do not fit.
    """
    timm = _import_timm()
    current = _deprecated_names().get(loader.name)
    if current:  # an old name, such as tf_efficientnet_b0_ns
        loader = replace(loader, name=current.partition(".")[0] if loader.file else current)
    if not timm.is_model(loader.architecture):
        raise UnknownNameError("architecture of timm", loader.architecture, timm.list_models())
    variants = timm.list_pretrained(f"{loader.architecture}.*")
    if loader.weights and loader.name not in variants:
        raise UnknownNameError("network of timm", loader.name, variants)
    if loader.file:
        network = _timm_from_file(timm, loader, loader.file)
        weights = loader.file.stem.removeprefix(f"{loader.architecture}.")
    else:
        with _translated(loader.text, f"file as {loader.text}@FILE"):
            network = timm.create_model(loader.name, pretrained=True)
        weights = network.pretrained_cfg["tag"]  # that of the weights timm takes if none are named
    transform = _timm_transform(timm.data.resolve_model_data_config(network), loader.text)
    num_params = count_params(network)
    network.reset_classifier(0)
    return Body(f"{loader.architecture}.{weights}", network, transform, num_params)


def _deprecated_names() -> dict[str, str | None]:
    """What timm calls networks today, by the names that it gave up."""
    registry = import_module("timm.models._registry")
    return getattr(registry, "_deprecated_models", {})


def timm_configs() -> dict[str, Any]:
    """The ``PretrainedCfg`` that timm has for each of its weights, by name; nothing is built or read."""
    return {name: timm_config(name) for name in _import_timm().list_pretrained()}


def timm_config(name: str) -> Any:
    """The ``PretrainedCfg`` of one network, by default weights if the name has none; ``None`` if unknown."""
    return _import_timm().models.get_pretrained_cfg(name)


def load_hugging_face(loader: Loader) -> Body:
    """An image model or a text encoder of the Hugging Face hub or of a local folder, without its head.

    A model of texts is one that has a tokenizer and no part for images; its features are pooled from its last
    hidden states as the loader says, by default their mean.

    Of a checkpoint ``...ForImageClassification`` the features are the inputs of the last linear layer of its
    classifier. Of any other they are what the model pools, if the checkpoint holds what pools; else the class
    token, if there is one; else the mean over positions. Of a model of images and texts, such as CLIP, the part
    for images is taken.

    Raises:
        WeightsError: If transformers is not installed, or the model cannot be had, takes no RGB images, or is
            no encoder of texts.
    """
    transformers = _import_transformers()
    place = str(Path(loader.name).expanduser()) if loader.is_folder else loader.name
    if loader.is_folder and not Path(place).is_dir():
        raise WeightsError(
            f"{loader.text}: no such folder; expected one with config.json and model.safetensors"
        )
    with _quiet(transformers), _translated(loader.text, "folder as hf:./FOLDER"):
        config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False)
        if _is_of_texts(transformers, config):
            return _load_text_encoder(transformers, loader, place, config)
        if loader.tells_of_texts:
            raise WeightsError(
                f"{loader.text}: {config.model_type} takes images; leave pooling and max_tokens out, which are "
                "of text encoders"
            )
        config = getattr(config, "vision_config", config)
        headed = any(name.endswith("ForImageClassification") for name in config.architectures or ())
        auto = transformers.AutoModelForImageClassification if headed else transformers.AutoModel
        network = _from_pretrained(auto, place, config, loader.text)
        processor = transformers.AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
    num_params = count_params(network)
    transform = _processor_transform(processor, loader.text)
    return Body(_name_of(loader, place), HuggingFaceBody(network), transform, num_params)


def _from_pretrained(auto: Any, place: str, config: Any, where: str) -> Any:
    """A model of transformers in single precision, without a pooler that its file does not hold."""
    network, report = auto.from_pretrained(
        place,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    drop_unfilled_pooler(network, report, where)
    return network


def _name_of(loader: Loader, place: str) -> str:
    return Path(place).resolve().name if loader.is_folder else loader.name.replace("/", ".")


def _is_of_texts(transformers: ModuleType, config: Any) -> bool:
    """Whether a model takes texts: its kind has a tokenizer, and no part of it takes images."""
    names = transformers.models.auto.tokenization_auto.TOKENIZER_MAPPING_NAMES
    return config.model_type in names and not hasattr(config, "vision_config")


def _load_text_encoder(transformers: ModuleType, loader: Loader, place: str, config: Any) -> Body:
    """A text encoder without any head, and the tokenizer that belongs to it.

    Raises:
        WeightsError: If the model decodes too, or its checkpoint does not hold all weights.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise WeightsError(
            f"{loader.text}: {config.model_type} is an encoder with a decoder; expected an encoder alone, such "
            "as BERT"
        )
    backend = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    network = _from_pretrained(transformers.AutoModel, place, config, loader.text)
    num_params = count_params(network)
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # features are pooled without it, so its weights would only cost
    _check_vocabulary(backend, network, loader.text)
    limits = (backend.model_max_length, _positions(config), loader.max_tokens or MAX_TOKENS)
    tokenizer = Tokenizer(backend, min(limits), tokenizer_hash(backend))
    pooling = loader.pooling or "mean"
    transform = TextTransform(tokenizer.hash, tokenizer.max_tokens, pooling)
    name = _name_of(loader, place) + ("" if pooling == "mean" else f".{pooling}")
    return Body(name, TextEncoder(network, pooling), transform, num_params, tokenizer=tokenizer)


def _positions(config: Any) -> int:
    """Most tokens that a model has positions for; those of RoBERTa's kin begin after that of padding."""
    positions: int = getattr(config, "max_position_embeddings", None) or MAX_TOKENS
    padding = getattr(config, "pad_token_id", None) or 0
    return positions - padding - 1 if config.model_type in _SHIFTED else positions


def _check_vocabulary(backend: Any, network: Any, where: str) -> None:
    """Refuse a tokenizer that knows no words, or is that of another model.

    Raises:
        WeightsError: If it is empty, or makes tokens that the model does not know.
    """
    vocabulary = backend.get_vocab()
    # transformers makes an empty one where there is none
    if len(vocabulary) < len(backend.all_special_ids) + 2:
        raise WeightsError(f"{where}: holds no tokenizer; expected a tokenizer.json beside the model")
    num_embeddings = network.get_input_embeddings().num_embeddings
    largest = max(vocabulary.values())
    if largest >= num_embeddings:
        raise WeightsError(
            f"{where}: its tokenizer makes tokens up to {largest}, and the model knows {num_embeddings}; "
            "expected the tokenizer that belongs to the model"
        )


class HuggingFaceBody(nn.Module):
    """An image model of transformers that maps images ``[N, 3, H, W]`` to features ``[N, F]``.

    Args:
        network: A bare model, or one with a ``classifier``, whose last linear layer is removed.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        classifier = dict(network.named_children()).get("classifier", nn.Identity())
        linear = [
            name
            for name, layer in classifier.named_modules(prefix="classifier")
            if isinstance(layer, nn.Linear)
        ]
        if linear:
            network.set_submodule(linear[-1], nn.Identity())
        self._class_token = any(
            name.endswith(("cls_token", "class_embedding")) for name, _ in network.named_parameters()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, 3, H, W]`` to features ``[N, F]``."""
        outputs = self.network(pixel_values=images)
        if outputs.get("logits") is not None:
            logits: Tensor = outputs["logits"]  # the classifier's inputs, now that it has none of its own
            return logits
        if outputs.get("pooler_output") is not None:
            pooled: Tensor = outputs["pooler_output"]  # [N, F], or [N, F, 1, 1] of convolutional networks
            return pooled.flatten(1)
        hidden: Tensor = outputs["last_hidden_state"]  # [N, L, F], or [N, F, H, W]
        if hidden.ndim == 4:
            return hidden.mean(dim=(2, 3))
        return hidden[:, 0] if self._class_token else hidden.mean(dim=1)


class TextEncoder(nn.Module):
    """A model of transformers that maps encoded texts ``[N, 2, L]`` to features ``[N, F]``.

    Padding is masked in attention and in pooling, so a token of it gets no gradient and gives none: a text has
    the same features and the same Fisher information whatever it is padded to.

    Args:
        network: What gives ``last_hidden_state`` ``[N, L, F]``.
        pooling: ``mean`` over the tokens of a text, or ``cls`` for the state of its first token.
    """

    def __init__(self, network: nn.Module, pooling: TextPooling) -> None:
        super().__init__()
        self.network = network
        self.pooling = pooling

    def forward(self, texts: Tensor) -> Tensor:
        """Map encoded texts ``[N, 2, L]``, integers, to features ``[N, F]``."""
        mask = texts[:, MASK]
        # A view: lookups of tokens are recognised by their memory, see indexer.fisher.weight_uses.
        outputs = self.network(input_ids=texts[:, TOKENS], attention_mask=mask)
        hidden: Tensor = outputs["last_hidden_state"]
        if self.pooling == "cls":
            return hidden[:, 0]
        return hidden.masked_fill(mask[..., None] == 0, 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def build_timm(architecture: str, install: str, num_classes: int = 1000) -> Any:
    """An architecture of timm with its head, not pretrained.

    Raises:
        WeightsError: If timm is not installed; ``install`` says what to do about it.
    """
    try:
        return _import("timm").create_model(architecture, num_classes=num_classes)
    except WeightsError as err:
        raise WeightsError(f"{architecture}: is built by timm, which cannot be imported; {install}") from err


def _import(library: str) -> ModuleType:
    """Import timm or transformers, after torchvision, which both need and which has to come through its door.

    Raises:
        WeightsError: If it is not installed.
    """
    import indexer.networks.torchvision  # noqa: F401

    try:
        return import_module(library)
    except ImportError as err:
        raise WeightsError(f"{library} cannot be imported ({err}); install task2vec-registry[hub]") from err


_import_timm, _import_transformers = partial(_import, "timm"), partial(_import, "transformers")


@contextmanager
def _translated(where: str, alternative: str) -> Iterator[None]:
    """Make what the libraries raise one sentence.

    Raises:
        WeightsError: If they raise anything: the hub's errors share no base but Exception.
    """
    try:
        yield
    except WeightsError:
        raise
    except Exception as err:
        problem = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
        raise WeightsError(f"{where}: cannot be loaded ({problem}); {_ELSEWHERE} {alternative}") from err


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Keep transformers from printing progress and reports, which ours says in errors."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _timm_from_file(timm: ModuleType, loader: Loader, path: Path) -> Any:
    """A network of timm for the number of classes that a file has, filled from it by timm's own conversion.

    Raises:
        WeightsError: If the file cannot be read, or does not fit.
    """
    usual = build_unfilled(lambda num_classes: timm.create_model(loader.name, num_classes=num_classes), 1000)
    state = without_prefix(read_weights(path), usual.state_dict())
    heads = timm.get_pretrained_cfg_value(loader.name, "classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    num_classes = next((len(state[f"{head}.weight"]) for head in heads if f"{head}.weight" in state), 0)
    source = {"state_dict": state, "num_classes": num_classes, "label_offset": 0}
    try:
        network = timm.create_model(
            loader.name, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=source
        )
    except Exception as err:  # a conversion meant for other tensors may raise anything
        lines = str(err).splitlines() or [type(err).__name__]
        raise WeightsError(misfit(path, loader.architecture, " ".join(lines[1:] or lines))) from err
    del network.pretrained_cfg["state_dict"]  # it would be kept beside the network
    return network


def _timm_transform(data_config: Mapping[str, Any], where: str) -> InputTransform:
    channels, height, width = data_config["input_size"]
    if channels != 3 or height != width:
        raise WeightsError(
            f"{where}: takes images of {channels}x{height}x{width}; expected square images of three channels"
        )
    resize = math.floor(height / data_config["crop_pct"])
    return InputTransform(resize, height, tuple(data_config["mean"]), tuple(data_config["std"]))


def _processor_transform(processor: Any, where: str) -> InputTransform:
    """What an image processor of transformers does, without its stretching of images that are not square.

    Raises:
        WeightsError: If it makes other inputs than square RGB images.
    """
    for option in ("do_flip_channel_order", "rescale_offset"):
        if getattr(processor, option, False):
            raise WeightsError(f"{where}: its image processor uses {option}; expected normalised RGB images")
    resize = crop = _side(processor.size, where)
    if getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None):
        crop = _side(processor.crop_size, where)
    elif getattr(processor, "crop_pct", None) and crop < 384:  # as ConvNextImageProcessor.resize
        resize = int(crop / processor.crop_pct)
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0  # of inputs to values of 0..1
    normalised = bool(processor.do_normalize)
    mean = processor.image_mean if normalised else (0.0, 0.0, 0.0)
    std = processor.image_std if normalised else (1.0, 1.0, 1.0)
    red_mean, green_mean, blue_mean = (value / scale for value in mean)
    red_std, green_std, blue_std = (value / scale for value in std)
    return InputTransform(
        max(resize, crop), crop, (red_mean, green_mean, blue_mean), (red_std, green_std, blue_std)
    )


def _side(size: Any, where: str) -> int:
    height, width, shortest = size.height, size.width, size.shortest_edge
    if not shortest and not (height and height == width):
        raise WeightsError(f"{where}: takes images of {height}x{width} pixels; expected square images")
    return int(shortest or height)
