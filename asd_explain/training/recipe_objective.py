"""The loss of a recipe: cross-entropy of the network's logits, and of heads on single streams beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from asd_explain.errors import OptionError
from asd_explain.models.fusion_backbone import FusionBackbone
from asd_explain.models.output import Output
from asd_explain.models.registry import create_model, list_models
from asd_explain.models.se import SqueezeExcite
from asd_explain.training.gate_statistics import follow_statistics
from asd_explain.training.recipe_company import CompanyBatch
from asd_explain.training.recipe_config import ModelConfig, RecipeLoss
from asd_explain.training.recipe_data import RecipeBatch

#: The published heads on single streams, by the names that all of the family give them.
HEADS = {"audio": "lossA", "face": "lossV", "body": "lossVB"}


def build(config: ModelConfig) -> FusionBackbone:
    """A network with fresh parameters, with the block that a recipe asks for.

    Raises:
        OptionError: unknown network, options that do not fit, or a block where it has one already.
    """
    if config.name not in list_models():
        raise OptionError(f"[model] name = {config.name!r}; choose one of {', '.join(list_models())}")
    try:
        model = create_model(config.name, **dict(config.options))
    except TypeError as error:
        raise OptionError(f"[model] options do not fit {config.name}: {error}") from error
    if config.gates:
        if model.fusion_gate is not None:
            raise OptionError(f"[model] gates: {config.name} has a block of its own already; leave gates = false")
        # In networks with projections the fusion point has other widths than the maps.
        widths = getattr(model, "fusion_streams", model.streams)
        model.attach_gates(SqueezeExcite(sum(widths.values()), config.reduction, config.scope))
    return model


def sees_body(model: FusionBackbone) -> str:
    """Whether a network looks at bodies: "no", "if there" (it knows of absence) or "needed"."""
    if "body" not in getattr(model, "crops", model.streams):
        return "no"
    return "if there" if model.learned_absence else "needed"


class RecipeObjective(nn.Module):
    """A network with the loss of a recipe.

    The heads on single streams look at the vectors at the fusion point before gating. They are the network's own where
    it has any (``HEADS``); for one that has none they are linear layers that live as long as the training does.

    Args:
        model: the network.
        loss: weights and temperature.
        precision: type of the encoders' arithmetic under autocast; None for float32.
        ranks: processes that share each batch.

    Raises:
        OptionError: the recipe weighs a stream that the network, or its heads, lack.
    """

    def __init__(
        self, model: FusionBackbone, loss: RecipeLoss, precision: torch.dtype | None = None, ranks: int = 1
    ) -> None:
        super().__init__()
        self.model, self.loss, self.precision, self.ranks = model, loss, precision, ranks
        asked = [name for name in loss.weights(1) if name != "fused"]
        if lacking := [name for name in asked if name not in model.streams]:
            raise OptionError(f"[loss] {', '.join(lacking)}: the network has no such stream")
        own = any(hasattr(model, name) for name in HEADS.values())
        if own and (lacking := [name for name in asked if not hasattr(model, HEADS[name])]):
            raise OptionError(f"[loss] {', '.join(lacking)}: the network has no head on that stream")
        widths = {} if own else {name: model.streams[name] for name in asked}
        self.heads = nn.ModuleDict({name: nn.Linear(width, 2) for name, width in widths.items()})
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: RecipeBatch, epoch: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of this process's share, and sums for the log.

        Over processes the *mean* of the losses is that of the whole batch, as their gradients are averaged.

        Args:
            batch: a share.
            epoch: from 1.

        Returns:
            (loss, {"frames", "right", "loss", and the parts: sums over this share's frames}).
        """
        model = self.model
        kind = batch.face.device.type
        inputs = {"face": batch.face, "audio": batch.audio, "body": batch.body}
        if batch.absent:
            inputs[batch.absent] = None
        with torch.autocast(kind, self.precision or torch.bfloat16, enabled=self.precision is not None):
            pooled, _ = model.encode(**inputs)
        pooled = {stream: values.float() for stream, values in pooled.items()}
        if self.training:
            follow_statistics(model, pooled, self.seen)
        weights = self.loss.weights(epoch)
        output = model.fuse(pooled)
        said = {"fused": output.logits} | self._auxiliary(output, [name for name in weights if name in pooled])
        temperature = self.loss.temperature_of(epoch)
        length = batch.target.shape[1]
        total, sums = self._summed(said, weights, temperature, batch.target, batch.weight[:, None].expand(-1, length))
        return total * (self.ranks / (batch.entities * length)), sums

    @staticmethod
    def _summed(
        said: dict[str, torch.Tensor],
        weights: dict[str, float],
        temperature: float,
        target: torch.Tensor,
        counts: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum of the cross-entropies over all frames, and sums for the log.

        Args:
            said: {"fused" or stream: (..., 2) logits}.
            weights: of these; what is not said is absent from this batch.
            temperature: divides the logits.
            target: (...) classes.
            counts: (...) how much a frame counts, 0 or 1.
        """
        total, sums = 0.0, {}
        for name, weight in weights.items():
            if name not in said:
                continue
            logits = said[name].float() / temperature
            loss = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
            summed = (loss * counts.flatten()).sum()
            total = total + weight * summed
            sums[name] = summed.detach()
        right = ((said["fused"].argmax(-1) == target) * counts).sum()
        return total, sums | {"loss": total.detach(), "right": right, "frames": counts.sum()}

    def _auxiliary(self, output: Output, streams: list[str]) -> dict[str, torch.Tensor]:
        """{stream: (N, T, 2)} of the heads on some streams."""
        if self.heads:
            return {stream: self.heads[stream](output.standardised[stream]) for stream in streams}
        block = self.model.fusion_gate
        if block is not None and block.mean is not None:
            raise OptionError("[loss] heads of their own behind a block that standardises are of no published recipe")
        return {stream: getattr(self.model, HEADS[stream])["FC"](output.standardised[stream]) for stream in streams}


class CompanyObjective(RecipeObjective):
    """The same of a network that sees several candidates together: every place counts, where somebody stands there.

    As published for LoCoNet: the sums run over all places of all tracks, and the heads on single streams look at the
    vectors at the fusion point of every place. All faces of a batch go through the trunk together, each once.
    """

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)
        if self.heads:
            raise OptionError(f"[loss] {', '.join(self.heads)}: the network has no heads on single streams")

    def forward(self, batch: CompanyBatch, epoch: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See the base; the frames of the log are those of all places."""
        model = self.model
        with torch.autocast(
            batch.face.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None
        ):
            audio = model.audio_embedding(batch.audio)
            pooled = model.pool(model.face_maps(torch.cat((batch.face, batch.company))))
        pooled, places = pooled.float(), len(batch.standing[0])
        # Rows picked by an index tensor would be summed in no fixed order on the way back.
        faces = torch.stack([pooled[row] for rows in batch.standing for row in rows])
        met = model.meet(audio.float(), faces.unflatten(0, (-1, places)))
        vectors = torch.cat([met[stream] for stream in model.fusion_streams], -1)
        if model.fusion_gate is not None:
            vectors = model.fusion_gate(vectors.flatten(0, 1)).unflatten(0, (-1, places))
        weights = self.loss.weights(epoch)
        said = {"fused": model.across(vectors)}
        said |= {s: getattr(model, HEADS[s])["FC"](met[s]) for s in weights if s in met}
        total, sums = self._summed(said, weights, self.loss.temperature_of(epoch), batch.target, batch.weight)
        return total * (self.ranks / batch.counted), sums


def objective_of(
    model: FusionBackbone, loss: RecipeLoss, precision: torch.dtype | None = None, ranks: int = 1
) -> RecipeObjective:
    """The objective that goes with a network; see :class:`RecipeObjective`."""
    kind = CompanyObjective if model.scored_together > 1 else RecipeObjective
    return kind(model, loss, precision, ranks)
