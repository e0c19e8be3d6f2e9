"""State spaces, dynamics and the search, against torch's distributions and what is known by hand."""

import pytest
import torch
from torch import nn

from vla_ros.policies.world_model import planning
from vla_ros.policies.world_model.dynamics import Ensemble, Probabilistic
from vla_ros.policies.world_model.latent import LatentWorldModel, WorldSize
from vla_ros.policies.world_model.rssm import KINDS, Belief, Gaussian, Rssm, divergence

SMALL = WorldSize(3, 32, 2, (4, 8), 16, "gaussian", 12, 5, 16)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("make, expected", [
    (lambda: Rssm(7), 821_120), (lambda: LatentWorldModel(WorldSize()), 42_689_605),
    (Probabilistic, 1_713_664), (Ensemble, 8_568_320),
])  # fmt: skip
def test_sizes_are_those_of_the_reference(make, expected):
    """Of the modular framework at aa88050, with its default arguments."""
    with torch.device("meta"):
        assert count(make()) == expected


def test_the_divergence_is_that_of_torchs_distributions():
    torch.manual_seed(0)
    one, other = (Gaussian(torch.randn(6, 5), torch.rand(6, 5) + 0.1) for _ in range(2))
    normals = [torch.distributions.Normal(each.mean, each.std) for each in (one, other)]
    expected = torch.distributions.kl_divergence(*normals).sum(-1)
    torch.testing.assert_close(divergence(one, other), expected)
    torch.testing.assert_close(divergence(one, other, 4.0), expected.clamp(min=4.0))
    assert (expected < 20).any() and (divergence(one, one, 3.0) == 3).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_imagined_is_what_steps_predict_one_by_one(kind):
    torch.manual_seed(0)
    model = KINDS[kind](3, 4, 12, hidden=16)
    actions, noise = torch.randn(2, 5, 3), torch.randn(2, 5, model.stochastic)
    start = Belief(torch.randn(2, 12), torch.randn(2, model.stochastic))
    imagined, belief = model.imagine(start, actions, noise), start
    for t in range(5):
        belief, prior = model.predict(belief, actions[:, t], noise[:, t])
        assert torch.equal(imagined.features[:, t], belief.features) and (prior.std > 0).all()
    if kind == "gaussian":
        torch.testing.assert_close(belief.s, prior.mean + prior.std * noise[:, -1])
        assert not torch.equal(model.imagine(start, actions).s, imagined.s)
        assert (prior.std >= 0.1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_action_leads_to_the_next_step_and_what_is_seen_corrects_it(kind):
    torch.manual_seed(0)
    model = KINDS[kind](3, 4, 12, hidden=16)
    before, seen = torch.randn(1, 4, 3), torch.randn(1, 4, 4)
    beliefs, prior, posterior = model.observe(model.begin(1), before, seen)
    for changed, late in ((before, seen), (seen, before)):
        other = changed.clone()
        other[:, 2] += 1
        args = (other, late) if changed is before else (late, other)
        again, expected, found = model.observe(model.begin(1), *args)
        same = (again.features == beliefs.features).all(dim=-1)[0].tolist()
        assert same == [True, True, False, False]
        assert torch.equal(expected.mean[:, 2], prior.mean[:, 2]) == (changed is seen)  # it is not seen yet
        assert not torch.equal(found.mean[:, 2], posterior.mean[:, 2])


def test_a_world_model_learns_what_actions_do_and_are_worth():
    """A bright column moves by the sign of the action and is worth something at the right: the loss falls, and the
    action counts at the step after it."""
    torch.manual_seed(0)
    model = LatentWorldModel(WorldSize(1, 16, 1, (8, 16), 16, "gaussian", 24, 4, 32))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    figures = []
    for _ in range(100):
        actions = torch.randint(0, 2, (16, 5, 1)).float() * 2 - 1
        place = 8 + torch.cat([torch.zeros(16, 1), actions[:, :-1, 0].cumsum(1)], dim=1)
        images = (torch.arange(16) == place[..., None]).float() * 2 - 1
        images = images[:, :, None, None, None].expand(-1, -1, 1, 3, 16, -1)
        terms = model.loss(images, actions, (place > 8).float(), (place > 10).float(), kl_scale=1e-3, free=1.0)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        figures.append({name: value.item() for name, value in terms.items()})
    assert figures[-1]["loss"] < 0.5 * figures[0]["loss"] and figures[-1]["reward"] < 0.1
    with torch.no_grad():
        embedding = model.encoder(images[:1, 0])  # the column in the middle
        belief, _, _ = model.rssm.update(model.rssm.begin(1), torch.zeros(1, 1), embedding)
        right, left = (model.imagine(belief, torch.full((1, 2, 1), sign))[1][0, -1] for sign in (1.0, -1.0))
    assert right > left + 0.5


def test_an_ensemble_says_what_the_mixture_of_its_members_says():
    torch.manual_seed(0)
    model = Ensemble(3, state_dim=2, action_dim=1, hidden=24, dropout=0.0)
    state, action = torch.rand(64, 2), torch.rand(64, 1)
    following = state + 0.5 * action
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(state, action, following).mean().backward()
        optimizer.step()
    with torch.no_grad():
        said = [member(state, action) for member in model.members]
        normals = torch.distributions.Normal(
            torch.stack([one.mean for one in said], -1), torch.stack([one.std for one in said], -1)
        )
        mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(64, 2, 3)), normals)
        found = model(state, action)
        torch.testing.assert_close(found.mean, mixture.mean)
        torch.testing.assert_close(found.total.square(), mixture.variance)
        torch.testing.assert_close(found.epistemic.square() + found.aleatoric.square(), mixture.variance)
        assert (found.epistemic > 0).all() and (found.mean - following).abs().max() < 0.3
        likelihood = normals.log_prob(following[..., None]).sum(1).mean(1)
        torch.testing.assert_close(model.loss(state, action, following), -likelihood)


def test_plans_are_described_by_the_main_directions_of_the_data():
    torch.manual_seed(0)
    plans = planning.Plans(6)
    data = torch.randn(400, 2) @ torch.randn(2, 6) + torch.arange(6.0)
    for part in data.split(70):
        plans.add(part)
    torch.testing.assert_close(plans.mean, data.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plans.covariance, data.T.cov(correction=0), rtol=1e-4, atol=1e-4)
    proposal = plans.proposal(2, 3)
    known = proposal.coefficients(data)
    torch.testing.assert_close(known.T.cov(correction=0), torch.eye(2), rtol=0, atol=0.05)
    inside = known.abs().amax(dim=1) < planning.MOST
    torch.testing.assert_close(proposal.plan(known)[inside], data[inside], rtol=1e-3, atol=1e-3)
    assert proposal.least.tolist() == pytest.approx([0.15, 0.0866, 0.05], abs=1e-4)


def test_a_search_comes_nearer_than_as_many_draws():
    torch.manual_seed(0)
    aim = torch.tensor([[1.0, -1.5, 0.5, 0.0, 1.2], [0.0] * 5])
    candidates, least, zeros = torch.randn(2, 5, 32, 5), torch.full((5,), 0.05), torch.zeros(2, 5)

    def worth(tried):
        return -(tried - aim[:, None]).square().sum(-1)

    drawn = planning.best(worth, zeros, candidates.flatten(1, 2))
    assert torch.equal(drawn[1], aim[1])  # what was good before is a candidate
    for found in (
        planning.cross_entropy(worth, zeros, zeros + 1, candidates, least, 4),
        planning.path_integral(worth, zeros, zeros + 1, candidates, least, 0.3),
    ):
        assert 2 * (found - aim)[0].norm() < (drawn - aim)[0].norm() and (found - aim)[1].norm() < 0.5
