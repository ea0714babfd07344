"""attach on models of other makes, each against a second computation that shares nothing with l2e.

The taps are named by hand, statistics are taken over all outputs kept in a list, and the formulas stand here
as the papers print them.
"""

import re
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutput

import l2e
from l2e.inhibition.placement import find_blocks

SETTINGS: dict[str, Any] = {"late_start": 1, "warmup": 1, "rate": 0.1, "forget_after": None}
TOP_K = 2
Key = int | str


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    run: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
    """Loss and output for a batch."""

    batch: Callable[[], Tensor]
    taps: dict[Key, str]
    """Key in `Inhibition.taps` -> path of the module, worked out by hand."""

    after: dict[Key, str]
    """Likewise the module that the tapped output goes to next ..."""

    received: Callable[[tuple[Any, ...]], Tensor] = lambda args: args[0]
    """... and where among its arguments."""

    place: Any = None
    """Index or key of the hidden states in the tapped output; None: it is them."""

    settings: dict[str, Any] = field(default_factory=dict)
    weight: float = 3e-3
    reentrant: bool | None = None
    """use_reentrant of transformers' gradient checkpointing; None: none."""

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        model = self.build().train()
        if self.reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": self.reentrant})  # type: ignore[operator]
        return model

    def attach(self, model: nn.Module, method: str, **more: Any) -> l2e.Inhibition:
        return l2e.attach(model, method=method, **{**SETTINGS, **self.settings, **more})

    def seeded(self, model: nn.Module, x: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)  # dropout and stochastic depth are on: attach must draw nothing itself
        return self.run(model, x)


# Models of transformers, 4 blocks of width 16 unless the test says otherwise.

TINY = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def build(name: str, **config: Any) -> nn.Module:
    model_class = getattr(transformers, name)
    return model_class(model_class.config_class(**config))


def run_language_model(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    output = model(x, labels=x, use_cache=False)
    return output.loss, output.logits


def run_classifier(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    output = model(x, labels=torch.arange(len(x)) % 2)
    return output.loss, output.logits


def tokens() -> Tensor:
    return torch.randint(3, 50, (6, 8))


def language_model(name: str, layers: str, **config: Any) -> Case:
    """Of 4 blocks; "middle-2", the default, must give 1 and 2."""
    return Case(
        build=partial(build, name, **{**TINY, **config}),
        run=run_language_model,
        batch=tokens,
        taps={1: f"{layers}.1", 2: f"{layers}.2"},
        after={1: f"{layers}.2", 2: f"{layers}.3"},
    )


GPT2 = {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 16}
LLAMA = language_model("LlamaForCausalLM", "model.layers")
INSIDE = "model.layers.{}.post_attention_layernorm"
LLAMA_INSIDE = replace(
    LLAMA,  # a module within a checkpointed block: its hooks run again in the recomputation
    settings={"blocks": [INSIDE.format(1), INSIDE.format(2)]},
    taps={INSIDE.format(index): INSIDE.format(index) for index in (1, 2)},
    after={INSIDE.format(index): f"model.layers.{index}.mlp" for index in (1, 2)},
)
BERT = Case(
    build=partial(build, "BertForSequenceClassification", **{**TINY, "num_hidden_layers": 12}),
    run=run_classifier,
    batch=tokens,
    taps={index: f"bert.encoder.layer.{index}" for index in (4, 5, 6, 7)},  # M15
    after={index: f"bert.encoder.layer.{index + 1}" for index in (4, 5, 6, 7)},
    settings={"blocks": "middle-4"},
)
SWIN_CONFIG = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [1, 1, 6, 1],
    "num_heads": [1, 2, 2, 2],
    "window_size": 2,
    "drop_path_rate": 0.2,
    "initializer_range": 0.2,
}
SWIN = Case(
    build=partial(build, "SwinForImageClassification", **SWIN_CONFIG),
    run=run_classifier,
    batch=lambda: torch.randn(6, 3, 32, 32),
    # M16: stage 4 // 2 of 4, blocks 6 // 2 - 2 to 6 // 2 + 1 of 6
    taps={index: f"swin.encoder.layers.2.blocks.{index}" for index in (1, 2, 3, 4)},
    after={index: f"swin.encoder.layers.2.blocks.{index + 1}" for index in (1, 2, 3, 4)},
    place=0,
    settings={"blocks": "middle-4", "stack": "swin.encoder.layers.2.blocks"},
    weight=1e-3,
)


# A convolutional GRU, called once per time step (M17).


class Mix(nn.Module):
    def forward(self, update: Tensor, state: Tensor, candidate: Tensor) -> Tensor:
        return (1 - update) * state + update * candidate


class Cell(nn.Module):
    def __init__(self, frame: int, hidden: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(frame + hidden, 2 * hidden, 3, padding=1)
        self.candidate = nn.Sequential(nn.Conv2d(frame + hidden, hidden, 3, padding=1), nn.Tanh())
        self.mix = Mix()

    def forward(self, frame: Tensor, state: Tensor) -> Tensor:
        update, reset = self.gates(torch.cat([frame, state], 1)).sigmoid().chunk(2, 1)
        return self.mix(update, state, self.candidate(torch.cat([frame, reset * state], 1)))


class ConvGRU(nn.Module):
    """Tells the next frame of [batch, time, channel, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = Cell(2, 6)
        self.head = nn.Conv2d(6, 2, 1)
        self.settings: dict[str, bool] | None = None

    def gradient_checkpointing_enable(self, settings: dict[str, bool]) -> None:
        self.settings = settings  # each time step a checkpoint of its own

    def step(self, frame: Tensor, state: Tensor) -> Tensor:
        if self.settings is None or not self.training:
            return self.cell(frame, state)
        return checkpoint(self.cell, frame, state, **self.settings)

    def forward(self, frames: Tensor) -> Tensor:
        # A reentrant checkpoint needs an input with gradients, in the first time step too.
        state = frames.new_zeros(len(frames), 6, *frames.shape[-2:]).requires_grad_()
        told = []
        for frame in frames.unbind(1):
            state = self.step(frame, state)
            told.append(self.head(state))
        return torch.stack(told, 1)


def run_forecast(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    told = model(x[:, :-1])
    return (told - x[:, 1:]).square().mean(), told


GRU = Case(
    build=ConvGRU,
    run=run_forecast,
    batch=lambda: torch.randn(5, 5, 2, 4, 4),
    taps={"cell.candidate": "cell.candidate"},
    after={"cell.candidate": "cell.mix"},
    received=lambda args: args[2],
    settings={"blocks": ["cell.candidate"]},
)


# A plain Sequential whose blocks return, and take, one of these packings of hidden states and a factor.

Named = namedtuple("Named", ["hidden", "factor"])


@dataclass(frozen=True)
class Packing:
    place: Any
    pack: Callable[[Tensor, Any], Any]
    factor: Callable[[Any], Any]


PACKINGS = {
    "tensor": Packing(None, lambda x, factor: x, lambda packed: 0.5),
    "tuple": Packing(0, lambda x, factor: (x, factor), lambda packed: packed[1]),
    "list": Packing(0, lambda x, factor: [x, factor], lambda packed: packed[1]),
    "named tuple": Packing(0, Named, lambda packed: packed.factor),
    "dict": Packing(
        "hidden_states", lambda x, factor: {"factor": factor, "hidden_states": x}, lambda packed: packed["factor"]
    ),
    "dict of one tensor": Packing("z", lambda x, factor: {"factor": 0.5, "z": x}, lambda packed: packed["factor"]),
    "model output": Packing(
        "last_hidden_state",
        lambda x, factor: BaseModelOutput(last_hidden_state=x, hidden_states=(factor,)),
        lambda packed: packed.hidden_states[0],
    ),
}


def pick(output: Any, place: Any) -> Tensor:
    return output if place is None else output[place]


def put(output: Any, place: Any, states: Tensor) -> Any:
    if place is None:
        return states
    if isinstance(output, BaseModelOutput):
        return BaseModelOutput(**{**output, place: states})
    if isinstance(output, dict):
        return {**output, place: states}
    items = [states, *output[1:]]
    return Named(*items) if isinstance(output, Named) else type(output)(items)


class Block(nn.Module):
    def __init__(self, packing: Packing) -> None:
        super().__init__()
        self.packing = packing
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, packed: Any) -> Any:
        x, factor = pick(packed, self.packing.place), self.packing.factor(packed)
        return self.packing.pack(x + factor * self.down(nn.functional.gelu(self.up(x))), factor)


def sequential(packing: Packing) -> Case:
    def run(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        output = pick(model(packing.pack(x, torch.tensor([0.5]))), packing.place)
        return output.square().mean(), output

    return Case(
        build=lambda: nn.Sequential(*[Block(packing) for _ in range(5)]),
        run=run,
        batch=lambda: torch.randn(6, 5, 8),
        taps={1: "1", 2: "2"},
        after={1: "2", 2: "3"},
        received=lambda args: pick(args[0], packing.place),
        place=packing.place,
    )


CASES = {
    "GPT-NeoX": language_model("GPTNeoXForCausalLM", "gpt_neox.layers", hidden_dropout=0.1),
    "GPT-2": language_model("GPT2LMHeadModel", "transformer.h", **GPT2),
    "Llama": LLAMA,
    "Llama, checkpoint": replace(LLAMA, reentrant=False),
    "Llama, reentrant": replace(LLAMA, reentrant=True),
    "Llama, inside a checkpoint": replace(LLAMA_INSIDE, reentrant=False),
    "Llama, inside a reentrant": replace(LLAMA_INSIDE, reentrant=True),
    "OLMo": language_model("OlmoForCausalLM", "model.layers"),
    "OLMo 2": language_model("Olmo2ForCausalLM", "model.layers"),
    "BERT": BERT,
    "Swin": SWIN,
    "ConvGRU": GRU,
    "ConvGRU, channels": replace(GRU, settings={**GRU.settings, "neurons": "channel", "channel_dim": 1}),
    "ConvGRU, checkpoint": replace(GRU, reentrant=False),
    "ConvGRU, reentrant": replace(GRU, reentrant=True),
    **{f"Sequential of {name}": sequential(packing) for name, packing in PACKINGS.items()},
}
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
any_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


class Plain:
    """The method in a model of its own: hooks that keep outputs, and the formulas.

    Attributes:
        outputs: of the tapped modules in the forward pass under way, one per call.
        seen: of all updates before it.
        mask: of the outputs deactivated last.
    """

    def __init__(self, case: Case, deactivating: bool = False) -> None:
        self.case = replace(case, reentrant=None)
        self.model = self.case.model()
        self.deactivating = deactivating
        self.outputs: dict[Key, list[Tensor]] = {key: [] for key in case.taps}
        self.seen: dict[Key, list[Tensor]] = {key: [] for key in case.taps}
        for key, path in case.taps.items():
            self.model.get_submodule(path).register_forward_hook(partial(self.keep, key))

    def keep(self, key: Key, module: nn.Module, args: Any, output: Any) -> Any:
        z = pick(output, self.case.place)
        self.outputs[key].append(z)
        if not self.deactivating or not self.seen[key]:
            return None
        mean, _ = self.mean_and_score(key, z)
        reversed_ = -z + (mean + z).detach()  # M07
        return put(output, self.case.place, torch.where(self.largest(key, z), reversed_, z))

    def step(self) -> None:
        for key, outputs in self.outputs.items():
            self.seen[key] += [z.detach() for z in outputs]
            outputs.clear()

    def mean_and_score(self, key: Key, z: Tensor) -> tuple[Tensor, Tensor]:
        """M01 and M04 from all outputs seen; every neuron is one (position, channel), or one channel."""
        samples = torch.cat(self.seen[key])
        if "neurons" in self.case.settings:
            samples = samples.transpose(1, -1).flatten(0, -2)
        mean, var = samples.mean(0), samples.var(0)
        spread = var + 0.01 * var.mean()
        if "neurons" in self.case.settings:
            mean, spread = mean.view(-1, 1, 1), spread.view(-1, 1, 1)
        return mean.expand_as(z), (z - mean) ** 2 / spread

    def largest(self, key: Key, z: Tensor) -> Tensor:
        """M07's selection: the TOP_K highest of each sample."""
        score = self.mean_and_score(key, z)[1].flatten(1)
        return torch.zeros_like(score).scatter(1, score.topk(TOP_K).indices, 1.0).view_as(z) > 0

    def penalty(self, thresholds: dict[Key, float]) -> tuple[Tensor, dict[Key, float]]:
        """L15, and the share of outputs above each threshold."""
        total, shares = torch.zeros(()), {}
        for key, outputs in self.outputs.items():
            masks = []
            for z in outputs:
                mean, score = self.mean_and_score(key, z)
                masks.append(score > thresholds[key])
                total = total + ((z - mean) ** 2)[masks[-1]].log().sum()
            shares[key] = torch.cat(masks).float().mean().item()
        return total, shares


def metric(inhibition: l2e.Inhibition, key: Key, name: str) -> float:
    return inhibition.metrics()[f"block{key}/{name}" if isinstance(key, int) else f"{key}/{name}"]


def gradients(loss: Tensor, model: nn.Module) -> list[Tensor]:
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if grad is None else grad for p, grad in zip(parameters, found, strict=True)]


def backward(loss: Tensor, model: nn.Module) -> list[Tensor]:
    """As `gradients`; a reentrant checkpoint knows no torch.autograd.grad."""
    model.zero_grad()
    loss.backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def norm(tensors: list[Tensor]) -> float:
    return torch.stack([tensor.norm() for tensor in tensors]).norm().item()


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    size = norm(expected)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5 * size)


def descend(model: nn.Module, grads: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            parameter -= 0.05 * grad


def batches(case: Case, count: int) -> list[Tensor]:
    torch.manual_seed(1)
    return [case.batch() for _ in range(count)]


def hooks(model: nn.Module) -> dict[tuple[str, str], int]:
    """How many hooks of each kind each module has."""
    return {
        (path, kind): len(held)
        for path, module in model.named_modules()
        for kind, held in vars(module).items()
        if "hooks" in kind and isinstance(held, dict) and held
    }


def trained(case: Case, method: str, updates: int = 4) -> tuple[nn.Module, l2e.Inhibition]:
    """A model whose outputs have been inhibited."""
    model = case.model()
    inhibition = case.attach(model, method, **({"weight": case.weight} if method == "l2e" else {"top_k": TOP_K}))
    for x in batches(case, updates):
        loss, _ = case.seeded(model, x)
        descend(model, backward(loss + inhibition.penalty(), model))
        inhibition.step()
    for key in case.taps:
        assert metric(inhibition, key, "selected") > 0
    return model, inhibition


@any_case
def test_the_modules_named_by_hand_are_tapped(case: Case) -> None:
    model = case.model()
    before = hooks(model)
    inhibition = case.attach(model, "l2e", weight=1.0)
    hooked = {path for (path, kind), count in hooks(model).items() if count > before.get((path, kind), 0)}
    assert hooked == {"", *case.taps.values()}  # "" is the model: it tells where a forward pass begins
    assert list(inhibition.taps) == list(case.taps)


@any_case
def test_l2e_equals_the_formulas_on_kept_outputs(case: Case) -> None:
    model, plain = case.model(), Plain(case)
    inhibition = case.attach(model, "l2e", weight=case.weight)
    for update, x in enumerate(batches(case, 5)):
        plain.model.load_state_dict(model.state_dict())
        thresholds = {key: metric(inhibition, key, "threshold") for key in case.taps}
        loss, _ = case.seeded(model, x)
        penalty = inhibition.penalty()
        grads = backward(loss + penalty, model)
        expected_loss, _ = case.seeded(plain.model, x)
        assert torch.equal(loss, expected_loss)
        of_loss = gradients(expected_loss, plain.model)
        if update < 2:  # one update for the statistics, one for the threshold
            assert penalty.item() == 0
            assert_close(grads, of_loss)
        else:
            expected, shares = plain.penalty(thresholds)
            of_penalty = gradients(case.weight * expected, plain.model)
            assert penalty.item() == pytest.approx(case.weight * expected.item(), rel=1e-4)
            assert 0.05 < norm(of_penalty) / norm(of_loss) < 20  # so that each would be missed
            assert_close(grads, [one + two for one, two in zip(of_loss, of_penalty, strict=True)])
        descend(model, grads)
        inhibition.step()
        plain.step()
        if update >= 2:
            for key, share in shares.items():
                assert 0 < share < 0.5
                assert metric(inhibition, key, "selected") == pytest.approx(share, rel=1e-6)


@any_case
def test_memel_equals_the_formulas_and_reverses_what_the_next_module_sends_back(case: Case) -> None:
    model, plain = case.model(), Plain(case, deactivating=True)
    given: dict[Key, list[Tensor]] = {key: [] for key in case.taps}
    got: dict[Key, list[Tensor]] = {key: [] for key in case.taps}

    def keep(kept: list[Tensor], z: Tensor) -> None:
        if z.requires_grad:
            z.retain_grad()
        kept.append(z)

    for key, path in case.taps.items():  # before attach: this hook sees what the block gives
        model.get_submodule(path).register_forward_hook(
            lambda module, args, output, key=key: keep(given[key], pick(output, case.place))
        )
    inhibition = case.attach(model, "memel", top_k=TOP_K)
    for key, path in case.after.items():
        model.get_submodule(path).register_forward_pre_hook(
            lambda module, args, key=key: keep(got[key], case.received(args))
        )

    for update, x in enumerate(batches(case, 4)):
        plain.model.load_state_dict(model.state_dict())
        loss, _ = case.seeded(model, x)
        assert inhibition.penalty().item() == 0
        grads = backward(loss, model)
        expected_loss, _ = case.seeded(plain.model, x)
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
        assert_close(grads, gradients(expected_loss, plain.model))
        for key in case.taps:
            pairs = list(zip(given[key], got[key], strict=True))
            # Forward, and again where a checkpoint holds the tap (whole blocks: depends on transformers' version).
            assert len(pairs) // len(plain.outputs[key]) in ([1] if case.reentrant is None else [1, 2])
            reversed_ = 0
            for z, z_next in pairs:
                if update == 0:
                    assert torch.equal(z, z_next)
                    continue
                mask = plain.largest(key, z)
                assert mask.flatten(1).sum(1).tolist() == [TOP_K] * len(z)
                assert torch.equal(z != z_next, mask)
                moments = inhibition.taps[key].statistics.moments
                assert moments is not None
                mean = moments.mean.view(-1, 1, 1) if "neurons" in case.settings else moments.mean
                assert torch.equal(z_next[mask], mean.expand_as(z)[mask])  # to the last bit
                torch.testing.assert_close(z_next[mask], plain.mean_and_score(key, z)[0][mask], rtol=1e-4, atol=1e-5)
                if z.grad is not None and z_next.grad is not None:
                    assert z_next.grad[mask].abs().sum() > 0
                    assert torch.equal(z.grad, torch.where(mask, -z_next.grad, z_next.grad))
                    reversed_ += 1
            assert update == 0 or reversed_ == len(plain.outputs[key])
            given[key].clear()
            got[key].clear()
        descend(model, grads)
        inhibition.step()
        plain.step()


def test_under_scope_micro_batch_each_time_step_is_an_update() -> None:
    case = GRU
    model, given, got = ConvGRU(), [], []
    model.cell.candidate.register_forward_hook(lambda module, args, output: given.append(output))
    case.attach(model, "memel", top_k=TOP_K, scope="micro_batch")
    model.cell.mix.register_forward_pre_hook(lambda module, args: got.append(args[2]))
    case.seeded(model, batches(case, 1)[0])
    assert len(given) == 4
    plain = Plain(case)
    for z, z_next in zip(given, got, strict=True):
        if plain.seen["cell.candidate"]:
            mask = plain.largest("cell.candidate", z)
            mean, _ = plain.mean_and_score("cell.candidate", z)
            assert torch.equal(z != z_next, mask)
            torch.testing.assert_close(z_next, torch.where(mask, mean, z))
        else:
            assert torch.equal(z, z_next)
        plain.seen["cell.candidate"].append(z.detach())


@pytest.mark.parametrize("method", ["l2e", "memel"])
@any_case
def test_evaluation_mode_is_the_untouched_model_bitwise(case: Case, method: str) -> None:
    model, _ = trained(case, method)
    untouched = case.model()
    untouched.load_state_dict(model.state_dict())
    model.eval()
    untouched.eval()
    x = batches(case, 1)[0]
    with torch.no_grad():
        assert torch.equal(case.run(model, x)[1], case.run(untouched, x)[1])
    (loss, output), (expected_loss, expected) = case.run(model, x), case.run(untouched, x)
    assert torch.equal(output, expected)
    for one, two in zip(backward(loss, model), backward(expected_loss, untouched), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("method", ["l2e", "memel"])
@any_case
def test_remove_gives_back_the_untouched_model_bitwise(case: Case, method: str) -> None:
    model, inhibition = trained(case, method)
    untouched = case.model()
    untouched.load_state_dict(model.state_dict())
    inhibition.remove()
    assert hooks(model) == hooks(untouched)
    for one, two in zip(model.modules(), untouched.modules(), strict=True):
        assert vars(one).keys() == vars(two).keys()
    x = batches(case, 1)[0]
    (loss, output), (expected_loss, expected) = case.seeded(model, x), case.seeded(untouched, x)
    assert torch.equal(output, expected)
    for one, two in zip(backward(loss, model), backward(expected_loss, untouched), strict=True):
        assert torch.equal(one, two)


def export(model: nn.Module, folder: Path) -> dict[str, bytes]:
    """What save_pretrained writes, or the entries of the state where there is no such method."""
    if isinstance(model, transformers.PreTrainedModel):
        model.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


@any_case
def test_an_export_is_the_same_before_and_after(case: Case, tmp_path: Path) -> None:
    model = case.model()
    case.run(model, batches(case, 1)[0])  # some models write to their config in the first pass
    before, keys = export(model, tmp_path / "before"), list(model.state_dict())
    inhibition = case.attach(model, "l2e", weight=case.weight)
    for x in batches(case, 3):
        loss, _ = case.seeded(model, x)
        backward(loss + inhibition.penalty(), model)
        inhibition.step()
    assert list(model.state_dict()) == keys
    assert export(model, tmp_path / "after") == before


PAGE = (Path(__file__).parents[2] / "docs" / "other-models.md").read_text()


@pytest.mark.parametrize(
    ("block", "taps"),
    list(enumerate([[4, 5, 6, 7], [1, 2, 3, 4], ["cell.candidate"]])),
    ids=["BERT", "Swin", "ConvGRU"],
)
def test_the_pages_blocks_run_and_inhibit(block: int, taps: list[Key], capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert len(blocks) == 3
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(blocks[block], "docs/other-models.md", "exec"), names)
    assert list(names["inhibition"].taps) == taps
    for key in taps:
        assert 0 < metric(names["inhibition"], key, "selected") < 0.5
    assert capsys.readouterr().out == f"{names['inhibition'].metrics()}\n"


def rows() -> list[tuple[str, str, str]]:
    """Class, path found and settings named of each model in the page's table."""
    cells = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| `")]
    return [
        (name, *[(re.findall(r"`(.+?)`", cell) or [""])[0] for cell in row])
        for classes, *row in [[*line, ""][:3] for line in cells]
        for name in re.findall(r"`(\w+)`", classes)
    ]


@pytest.mark.parametrize(("name", "found", "named"), rows(), ids=[row[0] for row in rows()])
def test_the_pages_table_is_right(name: str, found: str, named: str) -> None:
    with torch.device("meta"):
        model = build(name)
    if found:
        assert find_blocks(model) is model.get_submodule(found)
        assert len(l2e.attach(model, weight=0.0).taps) == 2
    else:
        with pytest.raises(ValueError, match="found no list of blocks"):
            l2e.attach(model, weight=0.0)
    if named:
        before = hooks(model)
        settings = eval(f"dict({named})")
        l2e.attach(model, weight=0.0, **settings)
        added = {path for (path, _), count in hooks(model).items() if count > before.get((path, _), 0)} - {""}
        assert all(path.startswith(settings.get("stack", (settings.get("blocks") or [""])[0])) for path in added)
        assert added


def test_outputs_without_hidden_states_are_refused() -> None:
    for output in ({"depth": 1}, (), None, (None, torch.ones(1)), BaseModelOutput()):
        module = nn.Identity()
        module.forward = lambda x, output=output: output  # type: ignore[method-assign]
        model = nn.ModuleDict({"inner": module})
        l2e.attach(model, blocks=["inner"], weight=0.0)
        with pytest.raises(TypeError, match="hidden states"):
            module(torch.ones(1))
