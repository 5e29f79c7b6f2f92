"""indexer.networks.hubs.TextEncoder: features and exact Fisher information of texts, whatever they are padded
to."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from builders_texts import save_encoder, sentences
from torch import Tensor
from torch.func import functional_call, grad

from indexer.embed import embed_trivial
from indexer.errors import SettingsError, WeightsError
from indexer.fisher.costs import fitting_batch_size, probe_costs
from indexer.fisher.estimate import fisher_information
from indexer.fisher.weight_uses import find_filters
from indexer.heads.heads import LinearHead
from indexer.networks import tokens
from indexer.networks.load import count_flops, load_expert, load_network
from indexer.networks.loaders import absolute_loader, parse_loader, takes_texts
from indexer.networks.run import Batches, PretrainedNetwork, blank_input, extract_features
from indexer.records import EmbeddingSettings, TextTransform

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def probe(encoder: Path) -> PretrainedNetwork:
    return load_network(f"hf:{encoder}")


@pytest.fixture(scope="module")
def doubles(encoder: Path) -> PretrainedNetwork:
    network = load_network(f"hf:{encoder}")
    network.body.double()
    return network


def head_of(features: int, classes: int = 3) -> LinearHead:
    generator = np.random.default_rng(1)
    return LinearHead(
        generator.normal(size=(classes, features)), generator.normal(size=classes), "single_label"
    )


def fisher_of(network: PretrainedNetwork, inputs: np.ndarray, *, batch_size: int, norm_weights: bool = False):
    batches = Batches(network, inputs, np.zeros(len(inputs), np.int64), batch_size)
    return fisher_information(
        network.body,
        head_of(network.num_features),
        batches,
        estimator="exact",
        generator=torch.Generator(),
        norm_weights=norm_weights,
    )


def slow_fisher(network: PretrainedNetwork, inputs: np.ndarray, *, norm_weights: bool = False) -> np.ndarray:
    """The definition: squared gradients of log p of each class of each text, one after another."""
    head = head_of(network.num_features)
    weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    blocks = find_filters(network.body, norm_weights=norm_weights)
    weights = {block.parameter_name: block.parameter.detach() for block in blocks}

    def log_probability(weights: dict[str, Tensor], text: Tensor, label: int) -> Tensor:
        features = functional_call(network.body, weights, (text[None],))[0]
        return (weight @ features + bias).log_softmax(dim=0)[label]

    total = torch.zeros(sum(block.num_filters for block in blocks), dtype=torch.float64)
    for text in torch.from_numpy(inputs).long():
        alone = text[:, : int(text[tokens.MASK].sum())]  # without its padding
        for label in range(len(bias)):
            grads = grad(log_probability)(weights, alone, label)
            probability = log_probability(weights, alone, label).exp()
            squares = [
                block.by_filter(grads[block.parameter_name][None].square()).mean(2)[0] for block in blocks
            ]
            total += probability * torch.cat(squares)
    return (total / len(inputs)).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("norm_weights", [False, True])
def test_fisher_of_padded_texts_is_that_of_torch_func_for_each_alone(
    encoder: Path, pooling: str, norm_weights: bool
):
    network = load_network(f"hf:{encoder}?pooling={pooling}")
    network.body.double()
    inputs = network.tokenizer.encode(sentences(7))
    assert len(set(tokens.text_lengths(inputs))) > 3  # most are padded
    found = fisher_of(network, inputs, batch_size=4, norm_weights=norm_weights)
    assert found.fallbacks == ()
    expected = slow_fisher(network, inputs, norm_weights=norm_weights)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-9, atol=1e-15)
    assert (expected > 0).mean() > 0.8


@pytest.mark.parametrize(
    ("kind", "slow"), [("Electra", ()), ("Roberta", ()), ("DistilBert", ()), ("GPT2", None), ("ModernBert", ())]
)
def test_fisher_of_other_architectures_is_that_of_torch_func(tmp_path: Path, kind: str, slow: tuple | None):
    options = {"Electra": {"embedding_size": 8}, "GPT2": {"n_head": 2, "n_layer": 2, "n_embd": 16}}
    network = load_network(f"hf:{save_encoder(tmp_path / 'encoder', kind=kind, **options.get(kind, {}))}")
    network.body.double()
    inputs = network.tokenizer.encode(sentences(4, seed=3))
    found = fisher_of(network, inputs, batch_size=4)
    rounding = 1e-6 if kind == "ModernBert" else 1e-8  # whose rotations are made in single precision
    np.testing.assert_allclose(found.mean, slow_fisher(network, inputs), rtol=rounding, atol=1e-15)
    if slow is not None:
        assert found.fallbacks == slow
    else:
        assert found.fallbacks


def test_a_text_has_the_same_features_and_fisher_alone_and_in_a_padded_batch(doubles: PretrainedNetwork):
    together = doubles.tokenizer.encode(sentences(6, seed=2))
    wider = np.concatenate([together, np.zeros((6, 2, 9), np.int32)], axis=2)
    with torch.no_grad():
        padded = doubles.body(torch.from_numpy(wider).long()).numpy()
    for row, text in enumerate(together):
        alone = text[None, :, : text[tokens.MASK].sum()]
        with torch.no_grad():
            features = doubles.body(torch.from_numpy(alone).long())[0].numpy()
        np.testing.assert_allclose(padded[row], features, rtol=1e-11, atol=1e-13)
    # A batch of all six padded, against one text a batch, which Batches cuts to its own length.
    np.testing.assert_allclose(
        fisher_of(doubles, wider, batch_size=6).mean, fisher_of(doubles, wider, batch_size=1).mean, rtol=1e-10
    )


def test_what_stands_in_the_padding_changes_nothing(doubles: PretrainedNetwork):
    inputs = doubles.tokenizer.encode(["good film", "the cast was very very good and the plot was awful"])
    other = inputs.copy()
    other[:, tokens.TOKENS][inputs[:, tokens.MASK] == 0] = 7
    assert not np.array_equal(inputs, other)
    one, two = (fisher_of(doubles, given, batch_size=2).mean for given in (inputs, other))
    np.testing.assert_array_equal(one, two)


def test_features_come_in_the_order_of_the_texts(probe: PretrainedNetwork):
    inputs = probe.tokenizer.encode(sentences(9, seed=4))
    together = extract_features(probe, inputs, batch_size=4)
    alone = np.concatenate([extract_features(probe, inputs[row : row + 1]) for row in range(9)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_pooling_is_the_mean_over_tokens_or_the_first_of_them(encoder: Path):
    model = transformers.AutoModel.from_pretrained(encoder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    given = tokenizer(sentences(3), padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        hidden = model(**given).last_hidden_state
    mask = given["attention_mask"][..., None]
    expected = {"mean": (hidden * mask).sum(1) / mask.sum(1), "cls": hidden[:, 0]}
    for pooling, features in expected.items():
        network = load_network(f"hf:{encoder}?pooling={pooling}")
        found = extract_features(network, network.tokenizer.encode(sentences(3)))
        np.testing.assert_allclose(found, features.numpy(), rtol=1e-4, atol=1e-5)


def test_network_tells_what_it_takes(encoder: Path, probe: PretrainedNetwork):
    assert (probe.takes, probe.num_features, probe.name) == ("texts", 16, encoder.name)
    assert isinstance(probe.transform, TextTransform)
    assert (probe.transform.max_tokens, probe.transform.pooling) == (32, "mean")
    assert probe.loader == f"hf:{encoder}?pooling=mean&max_tokens=32"
    assert takes_texts(probe.loader)
    assert not takes_texts("hf:google/vit-base-patch16-224")
    again = load_network(probe.loader)
    assert (again.transform, again.weights_hash, again.loader) == (
        probe.transform,
        probe.weights_hash,
        probe.loader,
    )
    assert count_flops(probe) > 0
    assert tuple(blank_input(probe.transform).shape) == (1, 2, 32)


def test_costs_are_those_of_the_longest_text(probe: PretrainedNetwork):
    costs = probe_costs(probe)
    assert {layer.form for layer in costs.layers} <= {"direct", "gram"}
    assert costs.layers[0].kind == "Embedding"
    assert fitting_batch_size(probe, 2**20, 4) > fitting_batch_size(probe, 2**20)


def test_trivial_task_has_a_positive_embedding_that_depends_on_the_probe_alone(probe: PretrainedNetwork):
    settings = EmbeddingSettings(seed=3, max_samples=10)
    trivial = embed_trivial(probe, settings)
    assert (trivial > 0).all()
    np.testing.assert_array_equal(trivial, embed_trivial(probe, EmbeddingSettings()))
    labels = np.arange(8) % 2
    drawn = probe.tokenizer.random_texts(labels, np.random.default_rng(0))
    inner = drawn[:, tokens.TOKENS, 1:-1]
    assert (drawn[:, tokens.TOKENS, 0] == 2).all()  # [CLS]
    assert inner[labels == 0].max() < inner[labels == 1].min()
    assert inner.min() >= 5  # none of the special ones


def test_expert_is_trainable(encoder: Path, probe: PretrainedNetwork):
    expert = load_expert(f"hf:{encoder}", num_classes=3)
    logits = expert(torch.from_numpy(probe.tokenizer.encode(["good film", "bad"])).long())
    logits.logsumexp(dim=1).sum().backward()
    assert logits.shape == (2, 3)


def test_texts_are_cut_after_the_tokens_that_the_loader_says(encoder: Path):
    network = load_network(f"hf:{encoder}?max_tokens=6")
    inputs = network.tokenizer.encode(["the " * 20, "good"])
    assert inputs.shape == (2, 2, 6)
    assert inputs[0, tokens.TOKENS, -1] == 3  # [SEP] stays
    assert network.transform != load_network(f"hf:{encoder}").transform


# --- loaders ---------------------------------------------------------------------------------------------


def test_loader_of_texts_is_taken_apart_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    loader = parse_loader("hf:./encoder?max_tokens=64&pooling=cls")
    assert (loader.name, loader.pooling, loader.max_tokens) == ("./encoder", "cls", 64)
    assert absolute_loader(loader.text) == f"hf:{tmp_path}/encoder?pooling=cls&max_tokens=64"
    assert absolute_loader("hf:./encoder") == f"hf:{tmp_path}/encoder"
    assert parse_loader("hf:./why?").name == "./why?"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("pooling=max", "pooling must be mean or cls, got 'max'"),
        ("max_tokens=2", "max_tokens must be a whole number of at least 3, got '2'"),
        ("max_tokens=x", "max_tokens must be a whole number of at least 3, got 'x'"),
        ("pool=cls", "no option is named 'pool'; known are pooling and max_tokens"),
    ],
)
def test_loader_options_that_are_not_understood_are_refused(options: str, message: str):
    with pytest.raises(SettingsError, match=f"^{re.escape(f'hf:./encoder?{options}: {message}')}$"):
        parse_loader(f"hf:./encoder?{options}")


def test_image_model_takes_no_options_of_texts(tmp_path: Path):
    config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=32)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"vit takes images; leave pooling and max_tokens out"):
        load_network(f"hf:{tmp_path}?pooling=cls")


def test_encoder_with_a_decoder_is_refused(tmp_path: Path):
    transformers.BartConfig().save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"bart is an encoder with a decoder; expected an encoder alone"):
        load_network(f"hf:{tmp_path}")


def test_tokenizer_of_another_model_is_refused(tmp_path: Path):
    save_encoder(tmp_path / "encoder", vocab_size=8)
    with pytest.raises(WeightsError, match=r"its tokenizer makes tokens up to \d+, and the model knows 8"):
        load_network(f"hf:{tmp_path / 'encoder'}")


def test_folder_without_a_tokenizer_is_refused(tmp_path: Path):
    folder = save_encoder(tmp_path / "encoder")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(WeightsError, match=r"holds no tokenizer; expected a tokenizer\.json beside the model"):
        load_network(f"hf:{folder}")
