"""Izadi's network: torchvision's VGG-16 as trunk, and what each case feeds the identity branch."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torchvision.models.vgg import cfgs, make_layers

from manifests.errors import InputError
from pipeline.backbones.state_dict import read_state_dict
from pipeline.training.fusion_network import CASES, FusionNetwork, attribute_loss, identity_loss, one_hot

T, PEOPLE, SIZE = 3, 4, 32


def network(case="predicted", **options):
    options = {"size": SIZE, "width": 1 / 32, "hidden": 8} | options
    return FusionNetwork(people=PEOPLE, attributes=T, case=case, **options).eval()


def images(count=2, size=SIZE):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def labels(*rows):
    return torch.tensor(rows, dtype=torch.int8)


# --- trunk ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_trunk_is_torchvisions(batch_norm, tmp_path):
    torch.manual_seed(3)
    reference = make_layers(cfgs["D"], batch_norm=batch_norm).eval()
    for name, tensor in reference.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
        elif tensor.ndim == 4:
            torch.nn.init.kaiming_normal_(tensor)
    ours = network(width=1.0, batch_norm=batch_norm, size=70)
    assert sum(parameter.numel() for parameter in ours.features.parameters()) == (
        14_723_136 if batch_norm else 14_714_688
    )
    file = {f"module.features.{name}": tensor for name, tensor in reference.state_dict().items()}
    save_file(file | {"module.classifier.6.weight": torch.zeros(5, 2)}, tmp_path / "vgg16.safetensors")
    ours.load_trunk(read_state_dict(tmp_path / "vgg16.safetensors"), "vgg16.safetensors")
    pictures = images(1, 70)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = reference((pictures / 255 - mean) / deviation)
        pooled = ours.pooled(pictures)
    assert expected.shape == (1, 512, 2, 2)
    assert pooled.shape == (1, ours.flat) == (1, 2048)
    torch.testing.assert_close(pooled, expected.flatten(1), rtol=1e-4, atol=1e-4)


def test_the_papers_size():
    with torch.device("meta"):
        paper = FusionNetwork(people=20, attributes=21, case="predicted")
    assert paper.flat == 512 * 7 * 7
    assert paper.attributes is not None
    branches = [sum(p.numel() for p in branch.parameters()) for branch in (paper.attributes, paper.identities)]
    assert branches == [
        (25088 + 1) * 4096 + (4096 + 1) * 42,
        (25088 + 42 + 1) * 4096 + (4096 + 1) * 20,
    ]


def test_too_small_an_input():
    assert network(size=32).flat == 16
    with pytest.raises(ValueError, match="at least 32, not 31"):
        network(size=31)


def test_a_seed_gives_all_cases_the_same_trunk_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    built = {case: network(case, seed=7) for case in CASES}
    assert torch.equal(torch.rand(3), expected)
    trunk = built["none"].features.state_dict()
    for case in CASES:
        other = built[case].features.state_dict()
        assert all(torch.equal(tensor, other[name]) for name, tensor in trunk.items())
    assert not torch.equal(network(seed=8).features[0].weight, trunk["0.weight"])
    assert set(built["none"].state_dict()) == {
        key for key in built["predicted"].state_dict() if "attributes" not in key
    }


def test_a_fresh_network_guesses():
    fresh = network("predicted", hidden=512, width=0.25)
    pooled = fresh.pooled(images(8))
    people = torch.arange(8) % PEOPLE
    known = torch.zeros(8, T, dtype=torch.int8)
    assert float(identity_loss(fresh.identity_logits(pooled, known), people).detach()) / 8 == pytest.approx(
        math.log(PEOPLE), rel=0.2
    )
    assert float(attribute_loss(fresh.attribute_logits(pooled), known).detach()) / (8 * T) == pytest.approx(
        math.log(2), rel=0.2
    )


# --- cases ----------------------------------------------------------------------------------------


def test_what_the_identity_branch_sees():
    one, other = labels([0, 1, 0], [1, 1, -1]), labels([1, 1, 0], [1, 1, -1])
    for case in CASES:
        built = network(case)
        pooled = built.pooled(images())
        if case == "predicted":
            fused = built.attribute_logits(pooled).softmax(2).flatten(1)
        elif case == "ground-truth":
            fused = torch.tensor([[1, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0.5, 0.5]])
        else:
            fused = torch.empty(2, 0)
        expected = built.identities(torch.cat([pooled, fused], 1))
        torch.testing.assert_close(built.identity_logits(pooled, one), expected)
        changed = (built.identity_logits(pooled, other) != expected).any(1).tolist()
        assert changed == ([True, False] if case == "ground-truth" else [False, False])


@pytest.mark.parametrize(("case", "reached"), [("ground-truth", False), ("predicted", True)])
def test_whether_identity_teaches_the_attribute_branch(case, reached):
    built = network(case)
    identity_loss(
        built.identity_logits(built.pooled(images()), labels([0, 1, 0], [1, 1, 0])), torch.tensor([0, 1])
    ).backward()
    assert built.attributes is not None
    assert [parameter.grad is not None for parameter in built.attributes.parameters()] == [reached] * 4
    assert all(parameter.grad is not None for parameter in built.features.parameters())


def test_case_none_has_no_attribute_branch():
    with pytest.raises(ValueError, match="no attribute branch"):
        network("none").attribute_logits(torch.zeros(1, 16))


def test_one_hot():
    assert one_hot(labels([0, 1, -1])).tolist() == [[[1, 0], [0, 1], [0.5, 0.5]]]


# --- losses ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_losses_are_the_papers_equations(data):
    count = data.draw(st.integers(1, 4))
    values = st.floats(-8, 8, width=32)
    logits = torch.tensor([[[data.draw(values) for _ in range(2)] for _ in range(T)] for _ in range(count)])
    known = labels(*[[data.draw(st.sampled_from((-1, 0, 1))) for _ in range(T)] for _ in range(count)])
    f = logits.double().exp() / logits.double().exp().sum(2, keepdim=True)
    expected = 0.0
    for i in range(count):
        for j in range(T):
            if known[i, j] >= 0:
                L = torch.tensor([1.0 - known[i, j], float(known[i, j])], dtype=torch.float64)
                expected -= math.log(float(f[i, j] @ L))
    assert float(attribute_loss(logits, known)) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    people = torch.tensor([data.draw(st.integers(0, 1)) for _ in range(count)])
    expected = -sum(math.log(float(f[i, 0, person])) for i, person in enumerate(people.tolist()))
    assert float(identity_loss(logits[:, 0], people)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_unknown_labels_give_no_gradient():
    logits = torch.randn(2, T, 2, requires_grad=True)
    attribute_loss(logits, labels([-1, 1, 0], [-1, -1, 1])).backward()
    assert logits.grad is not None
    reached = logits.grad.ne(0).all(2)
    assert reached.tolist() == [[False, True, True], [False, False, True]]
    assert float(attribute_loss(logits, torch.full((2, T), -1, dtype=torch.int8)).detach()) == 0


# --- weights --------------------------------------------------------------------------------------


def trunk_state(**options):
    return {
        f"features.{name}": tensor.clone() for name, tensor in network(seed=9, **options).features.state_dict().items()
    }


@pytest.mark.parametrize("prefix", ["", "features.", "network.features."])
def test_a_run_of_another_case_gives_its_trunk(prefix):
    given = {prefix + name.removeprefix("features."): tensor for name, tensor in trunk_state().items()}
    built = network("ground-truth")
    head = built.identities[0].weight.detach().clone()
    built.load_trunk(given | {"identities.0.weight": torch.ones(2)}, "best.safetensors")
    assert all(torch.equal(tensor, given[prefix + name]) for name, tensor in built.features.state_dict().items())
    assert torch.equal(built.identities[0].weight, head)


def test_half_precision_weights_are_taken():
    given = {name: tensor.half() for name, tensor in trunk_state().items()}
    built = network()
    built.load_trunk(given, "half.safetensors")
    assert built.features[0].weight.dtype == torch.float32
    assert torch.equal(built.features[0].weight, given["features.0.weight"].float())


def broken_states():
    missing = trunk_state()
    del missing["features.28.weight"]
    not_finite = trunk_state()
    not_finite["features.5.bias"][0] = math.nan
    return {
        "no features.28.weight .*begin with features.0.weight, features.0.bias": missing,
        r"features.0.weight as \[4, 3, 3, 3\] where \[2, 3, 3, 3\] is wanted": trunk_state(width=1 / 16),
        "features.5.bias that is not finite": not_finite,
        "another network: features.30.weight has no place": trunk_state() | {"features.30.weight": torch.ones(1)},
        "no features.0.weight": {"conv1.weight": torch.ones(1)},
    }


@pytest.mark.parametrize("message", broken_states())
def test_weights_of_something_else_are_refused_whole(message):
    built = network()
    before = built.features[0].weight.detach().clone()
    with pytest.raises(InputError, match=message) as caught:
        built.load_trunk(broken_states()[message], "other.pth")
    assert 'weights "other.pth"' in str(caught.value)
    assert "torchvision's vgg16," in str(caught.value)
    assert torch.equal(built.features[0].weight, before)


def test_the_batch_norm_variants_are_told_apart():
    with pytest.raises(InputError, match="torchvision's vgg16_bn"):
        network(batch_norm=True).load_trunk(trunk_state(), "vgg16.pth")
    with pytest.raises(InputError, match="torchvision's vgg16,"):
        network().load_trunk(trunk_state(batch_norm=True), "vgg16_bn.pth")


def test_dropout_is_before_the_last_layers():
    built = network("ground-truth", dropout=0.999, hidden=64).train()
    pooled = built.pooled(images())
    assert built.attributes is not None
    for branch in (built.attributes, built.identities):
        with torch.no_grad():
            branch[-1].bias.fill_(3.0)
    torch.manual_seed(0)
    dropped = built.attribute_logits(pooled)
    assert torch.equal(dropped, torch.full_like(dropped, 3.0))
    plain = F.linear(built.attributes[0](pooled).relu(), built.attributes[-1].weight, built.attributes[-1].bias)
    torch.testing.assert_close(built.eval().attribute_logits(pooled).flatten(1), plain)
