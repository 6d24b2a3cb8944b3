"""A decoder from a folder or a hub, read as packed rows: a token sees its own path alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from agentrl.core.errors import SetupError
from agentrl.core.threads import MODEL_LOADING
from agentrl.learner.attention import attend_segments
from agentrl.learner.batch import Layout
from agentrl.learner.critic import ValueHead, ValueTerms
from agentrl.learner.logprobs import ChunkedLoss, Terms, chunked_logprobs, chunked_loss

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from agentrl.learner.settings import LoraSettings

ATTENTION = "agentrl_segments"
"""Name under which transformers knows `attend_segments`."""


def load_policy(
    name: str | Path,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    lora: LoraSettings | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 0,
) -> PackedPolicy:
    """The decoder of a folder or a hub, to be read in packed rows; dropout is off.

    `lora` freezes it and adds adapters, drawn from `seed`. Raises `SetupError` where `name` cannot
    be loaded and where the architecture is one that packed rows would change silently.
    """
    from transformers import AttentionInterface, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    AttentionInterface.register(ATTENTION, attend_segments)
    try:
        with MODEL_LOADING:
            model = AutoModelForCausalLM.from_pretrained(
                str(name), dtype=getattr(torch, dtype), attn_implementation=ATTENTION
            )
    except (OSError, ValueError) as error:
        raise SetupError(
            f"the policy {str(name)!r} cannot be loaded: {error}. Give a folder with config.json "
            "and model.safetensors, or a hub name while online"
        ) from error
    return prepare_policy(
        model, lora=lora, gradient_checkpointing=gradient_checkpointing, seed=seed
    )


def prepare_policy(
    model: PreTrainedModel,
    *,
    lora: LoraSettings | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 0,
) -> PackedPolicy:
    """As `load_policy`, for a decoder that is already in memory."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend_segments)
    _refuse_unsupported(model)
    model.set_attn_implementation(ATTENTION)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if lora is not None:
        _add_adapters(model, lora, seed)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()  # transformers checkpoints activations only in training mode
    return PackedPolicy(model, lora=lora is not None)


class PackedPolicy(nn.Module):
    """A decoder whose forward is a loss over a packed row's trained tokens.

    T tokens in the row, N of them trained. The output projection is read by a module of its own,
    so that DeepSpeed gathers it there (ZeRO 3) though the decoder's own head never runs.
    """

    def __init__(self, model: PreTrainedModel, *, lora: bool = False) -> None:
        super().__init__()
        self.model = model
        self.head = _Head(model.get_output_embeddings().weight)
        self.value_head: ValueHead | None = None
        self.lora = lora

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        trained: Tensor,
        previous: Tensor,
        *,
        layout: Layout,
        temperature: float = 1.0,
        terms: Terms | None = None,
        scale: float = 1.0,
        entropy_gradient: bool = False,
        value_terms: ValueTerms | None = None,
        values_alone: bool = False,
    ) -> ChunkedLoss:
        """Loss (`chunked_loss` with `terms`) of the tokens at indices `trained` (N,) of a row (T,).

        Each is predicted from the token before it on its path, at index `previous` (N,). Without
        `terms` the loss is 0 and the row's log-probabilities and entropies are all there is. With
        a value head there are values too; scale · `value_terms` of them is added to the loss, and
        `values_alone` spares the logits.
        """
        hidden = self.backbone(
            input_ids=token_ids[None],
            position_ids=positions[None],
            use_cache=False,
            layout=layout,
        ).last_hidden_state[0]
        hidden = hidden[previous]
        values = None if self.value_head is None else self.value_head(hidden)
        if values_alone:
            none = hidden.new_zeros(0)
            return ChunkedLoss(hidden.new_zeros(()), none, none, values)
        result: ChunkedLoss = self.head(
            hidden,
            token_ids[trained],
            temperature=temperature,
            terms=terms,
            scale=scale,
            entropy_gradient=entropy_gradient,
        )
        if values is None or value_terms is None:
            return result._replace(values=values)
        loss = result.loss + scale * value_terms(values).sum()
        return result._replace(loss=loss, values=values)

    @property
    def backbone(self) -> nn.Module:
        """The decoder without its output projection."""
        backbone: nn.Module = getattr(self.model, self.model.base_model_prefix)
        return backbone

    @property
    def width(self) -> int:
        """Size of a hidden state."""
        return int(self.head.weight.shape[1])

    def add_value_head(self) -> ValueHead:
        """Give the policy a critic on its own hidden states."""
        self.value_head = ValueHead(self.width)
        return self.value_head

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """While open, the policy is the one it started as (LoRA only)."""
        from peft.tuners.lora import LoraLayer

        layers = [module for module in self.modules() if isinstance(module, LoraLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    @torch.no_grad()
    def hub_weights(self) -> dict[str, Tensor]:
        """Weights under hub names, on the CPU: adapters merged, tied tensors once.

        With ZeRO 3 a collective call: each weight is gathered on all ranks in turn.
        """
        from transformers.core_model_loading import revert_weight_conversion

        adapted = {}
        if self.lora:
            from peft.tuners.lora import LoraLayer

            adapted = {
                f"{name}.base_layer.weight": module
                for name, module in self.model.named_modules()
                if isinstance(module, LoraLayer)
            }
        weights: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            if ".lora_" in name:
                continue
            layer = adapted.get(name)
            with _gathered([parameter] if layer is None else list(layer.parameters())):
                value = parameter.detach()
                if layer is not None:
                    value = (value.float() + layer.get_delta_weight("default").float()).to(
                        value.dtype
                    )
                weights[name.replace(".base_layer.", ".")] = value.to("cpu", copy=True).contiguous()
        converted: dict[str, Tensor] = revert_weight_conversion(self.model, weights)
        return converted


class _Head(nn.Module):
    """The output projection and the loss on it; its weight is the decoder's own parameter."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(
        self,
        hidden: Tensor,
        targets: Tensor,
        *,
        temperature: float,
        terms: Terms | None,
        scale: float,
        entropy_gradient: bool,
    ) -> ChunkedLoss:
        if terms is None:
            values = chunked_logprobs(hidden, self.weight, targets, temperature=temperature)
            return ChunkedLoss(hidden.new_zeros(()), *values)
        return chunked_loss(
            hidden,
            self.weight,
            targets,
            terms,
            temperature=temperature,
            scale=scale,
            entropy_gradient=entropy_gradient,
        )


@contextmanager
def _gathered(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Whole parameters while open, where ZeRO 3 has cut them up."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameters):
        yield


def _add_adapters(model: PreTrainedModel, lora: LoraSettings, seed: int) -> None:
    """Freeze `model` and put LoRA adapters beside its linear layers, in place."""
    from peft import LoraConfig, inject_adapter_in_model

    backbone = getattr(model, model.base_model_prefix)
    linear = {
        name.rpartition(".")[2]
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear)
    }
    unknown = sorted(set(lora.targets or ()) - linear)
    if unknown:
        raise SetupError(
            f"learner.lora.targets names {', '.join(unknown)}, which the policy has no linear "
            f"layer for; it has {', '.join(sorted(linear))}"
        )
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=sorted(lora.targets or linear)
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, backbone)


def _refuse_unsupported(model: PreTrainedModel) -> None:
    """Raise where the decoder does something between tokens or to logits that we would drop."""
    found = list(_unsupported(model.config.get_text_config()))
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        found.append("a bias in the output projection")
    if found:
        raise SetupError(
            f"{type(model).__name__} cannot be trained in packed rows, for it has "
            f"{' and '.join(found)}. Use a decoder with full causal attention and a plain output "
            "projection (Qwen2, Qwen3, Llama, for example)"
        )


def _unsupported(config: PretrainedConfig) -> Iterator[str]:
    values: Mapping[str, object] = config.to_dict()
    layers = set(values.get("layer_types") or ()) - {"full_attention"}  # type: ignore[call-overload]
    if layers:
        yield f"layers of type {', '.join(sorted(layers))}"
    elif "layer_types" not in values and values.get("sliding_window"):
        yield "a sliding attention window"
    for key in ("final_logit_softcapping", "attn_logit_softcapping", "logits_scaling"):
        if values.get(key) not in (None, 1, 1.0):
            yield f"{key} = {values[key]}"
    if getattr(config, "model_type", "") == "gpt_oss":
        yield "attention sinks"
