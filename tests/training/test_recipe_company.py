"""Tracks with their company: who stands beside whom, what counts, and a training of a network that sees several."""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from entity_support import FakeEntities, SmallCompany, fake_entities
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from training_support import cross_entropy, in_two_processes

from asd_explain.datasets.entities import EntityRow
from asd_explain.errors import OptionError
from asd_explain.evaluate.ava_csv import ava_average_precision
from asd_explain.models.registry import create_model
from asd_explain.models.se import SqueezeExcite
from asd_explain.tools import predict_asd, train
from asd_explain.training import recipe_run, recipe_scoring
from asd_explain.training.folder import begin_with
from asd_explain.training.recipe_company import Company, CompanyBatch, CompanyBatches, draw_company
from asd_explain.training.recipe_config import AugmentConfig, BatchConfig, ModelConfig, Recipe, RecipeLoss
from asd_explain.training.recipe_data import RecipeBatches
from asd_explain.training.recipe_objective import CompanyObjective, build, objective_of
from asd_explain.weights.store import load

CPU = torch.device("cpu")
PLAIN = AugmentConfig(view=False, voice=0)


def row(
    name: str, frames: list[int], video: str = "v", fps: float = 25.0, labels: list[int] | None = None
) -> EntityRow:
    """A track that is there in some frames of its video, times to 10 ms as annotators write them."""
    return EntityRow(
        name, video, np.round(np.array(frames) / fps, 2), np.array(labels or [0] * len(frames), np.int8), fps
    )


def at(company: Company, index: int, frames: int | None = None) -> dict[int, list[int]]:
    return {other: found.tolist() for other, found in company.beside(index, frames).items()}


def test_company_are_those_who_share_frames_of_one_video() -> None:
    rows = [
        row("own", [10, 11, 12, 13, 15]),  # frame 14 is missing
        row("all of it", list(range(8, 20))),
        row("its end, with a gap", [13, 14, 16]),
        row("before", [7, 8, 9]),
        row("elsewhere", [10, 11, 12], video="w"),
        row("half the rate", [5, 6, 7], fps=12.5),  # frames 10, 12, 14 of the others
    ]
    company = Company(rows)
    assert at(company, 0) == {1: [2, 3, 4, 5, 7], 2: [-1, -1, -1, 0, -1], 5: [0, -1, 1, -1, -1]}
    assert at(company, 0, 2) == {1: [2, 3], 5: [0, -1]}, "of what is learnt from"
    assert at(company, 3) == {1: [-1, 0, 1]}
    assert at(company, 4) == {}
    assert at(Company([row("one frame", [3]), row("the same", [3])]), 0) == {1: [0]}


@given(st.lists(st.sets(st.integers(0, 12), min_size=1), min_size=2, max_size=4), st.sampled_from([25.0, 29.97, 60.0]))
def test_to_share_a_frame_is_mutual(present: list[set[int]], fps: float) -> None:
    rows = [row(str(i), sorted(frames), fps=fps) for i, frames in enumerate(present)]
    company = Company(rows)
    for i, frames in enumerate(present):
        found = company.beside(i)
        assert set(found) == {j for j, other in enumerate(present) if j != i and other & frames}, "brute force"
        for j, places in found.items():
            back = company.beside(j)[i]
            assert all(back[k] == t for t, k in enumerate(places) if k >= 0)
            assert (places >= 0).tolist() == [frame in present[j] for frame in sorted(frames)]


def test_who_stands_beside_a_track_is_drawn_as_published() -> None:
    def found(*present: str, seed: int = 0) -> tuple[list[int], list[int]]:
        beside = {10 + i: np.array([0 if c == "x" else -1 for c in text]) for i, text in enumerate(present)}
        others, frames, standing = draw_company(np.random.default_rng(seed), beside, 3)
        assert all(frame is beside[other] for other, frame in zip(others, frames, strict=True))
        return others, standing

    assert found() == ([], [0, 0, 0]), "alone it stands in all places"
    assert found("xx..", "..x.") == ([], [0, 0, 0]), "not there in the middle, or not for more than half"
    assert found("..xx") == ([], [0, 0, 0]), "half is not more than half"
    assert found(".xxx") == ([10], [0, 1, 1]), "the only other stands twice, the track itself does not"
    drawn = [found("xxxx", ".xxx", "xxx.", seed=seed) for seed in range(40)]
    assert all(standing == [0, 1, 2] for _, standing in drawn)
    assert {tuple(others) for others, _ in drawn} == {(a, b) for a in (10, 11, 12) for b in (10, 11, 12) if a != b}


def people(lengths: list[int], **fields: object) -> FakeEntities:
    """Entities that are all in one picture from the first frame of the video on."""
    entities = fake_entities(lengths, **fields)
    for i in range(len(lengths)):
        entities.change(i, entity=replace(entities.rows[i], video_id="v"))
    return entities


def later(entities: FakeEntities, index: int, frames: int) -> None:
    """An entity comes into the picture so many frames later."""
    own = entities.rows[index]
    entities.change(index, entity=replace(own, timestamps_s=np.round(own.timestamps_s + frames / own.fps, 2)))


def recipe(entities: int = 0, augment: AugmentConfig = PLAIN, clip: int = 0) -> Recipe:
    return Recipe(ModelConfig("x"), batches=BatchConfig(1000, entities, clip), augment=augment, seed=5)


def drawn(entities: FakeEntities, how: Recipe | None = None, epoch: int = 1, **sharing: int) -> CompanyBatch:
    return CompanyBatches(entities, how or recipe(), places=3, feature="log_mel", **sharing).batch(epoch, 0)


def test_a_batch_by_hand() -> None:
    entities = people([8, 8], seed=3)
    later(entities, 1, 2)
    entities.clips[1].labels[:] = 1
    got = drawn(entities)
    one = next(i for i in range(2) if torch.equal(got.face[i], torch.from_numpy(entities.clips[0].face)))
    other = 1 - one
    assert got.audio.shape == (2, 32, 64)
    standing = got.standing[one]
    assert standing[0] == one
    assert standing[1] == standing[2] >= 2, "the other stands twice"
    seen = got.company[standing[1] - 2]
    assert not seen[:2].any(), "black before the other comes"
    assert torch.equal(seen[2:], torch.from_numpy(entities.clips[1].face[:6]))
    assert got.weight[one].tolist() == [[1] * 8, [0, 0] + [1] * 6, [0, 0] + [1] * 6]
    assert got.weight[other].tolist() == [[1] * 8, [1] * 6 + [0, 0], [1] * 6 + [0, 0]]
    assert got.target[one, 0].tolist() == entities.clips[0].labels.tolist()
    assert got.target[one, 1].tolist() == [0, 0] + [1] * 6
    assert got.counted == int(got.weight.sum()) == 2 * (8 + 6 + 6)


def test_only_the_first_frames_count_and_so_many_entities_share_a_batch() -> None:
    entities = people([30, 20, 12, 9, 7])
    later(entities, 1, 8)
    entities.clips[1].face[:] = 201
    batches = CompanyBatches(entities, recipe(entities=2, clip=10), places=3, feature="log_mel")
    assert [len(batch) for batch in batches.plan] == [2, 2, 1]
    seen_beside: dict[int, set[bool]] = {}
    accompanied: set[int] = set()
    for epoch in range(12):
        for number, members in enumerate(batches.plan):
            got = batches.batch(epoch, number)
            assert got.face.shape[1] == min(10, *(len(entities.rows[i]) for i in members))
            for place, index in enumerate(members):
                assert torch.equal(got.face[place], torch.from_numpy(entities.clips[index].face[: got.face.shape[1]]))
                beside = [r - len(members) for r in got.standing[place][1:] if r >= len(members)]
                accompanied |= {int(index)} if beside else set()
                seen = any((got.company[r] == 201).any() for r in beside)
                seen_beside.setdefault(int(index), set()).add(seen)
    # Of 30 frames entity 0 shares most with entity 1, of its first ten it shares two; entity 4 goes before 1 comes.
    assert seen_beside == {i: {False} for i in range(5)}
    assert accompanied == {0, 1, 2, 3, 4}


def test_a_batch_depends_on_seed_epoch_and_number_alone_and_is_shared_without_a_change() -> None:
    entities = people([12] * 5)
    later(entities, 2, 3)
    how = recipe(augment=AugmentConfig(voice=1.0, voices="set"))
    whole, again, other = drawn(entities, how), drawn(entities, how), drawn(entities, how, epoch=2)
    assert torch.equal(whole.company, again.company)
    assert whole.standing == again.standing
    assert torch.equal(whole.audio, again.audio)
    assert whole.standing != other.standing or not torch.equal(whole.company, other.company)
    shares = [drawn(entities, how, rank=rank, ranks=2) for rank in range(2)]
    for name in ("face", "audio", "target", "weight"):
        together = torch.stack([getattr(shares[i % 2], name)[i // 2] for i in range(5)])
        assert torch.equal(together, getattr(whole, name)), name

    def faces(batch: CompanyBatch, i: int) -> torch.Tensor:
        return torch.cat((batch.face, batch.company))[list(batch.standing[i])]

    for i in range(5):
        assert torch.equal(faces(shares[i % 2], i // 2), faces(whole, i))
    assert {share.counted for share in shares} == {whole.counted} == {int(whole.weight.sum())}
    idle = drawn(entities, how, rank=6, ranks=7)
    assert idle.weight.sum() == 0
    assert idle.counted == whole.counted


def test_another_voice_may_be_of_the_whole_set() -> None:
    entities = people([9, 9])
    how = recipe(entities=1, augment=replace(PLAIN, voice=1.0, voices="set", snr_db=(0.0, 0.0)))
    mixed, own = drawn(entities, how).audio, drawn(entities, recipe(entities=1)).audio
    assert not torch.equal(mixed, own), "alone in its batch it still hears the other"
    alone = drawn(entities, recipe(entities=1, augment=replace(PLAIN, voice=1.0))).audio
    assert torch.equal(alone, own)
    with pytest.raises(OptionError, match=r"voices = 'all' is neither"):
        AugmentConfig(voices="all")
    with pytest.raises(OptionError, match=r"\[augment\] absent"):
        drawn(entities, recipe(augment=replace(PLAIN, absent=0.5)))


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def net() -> SmallCompany:
    torch.manual_seed(1)
    return SmallCompany(drop=0.0)


@pytest.fixture
def batch() -> CompanyBatch:
    entities = people([9, 8, 8])
    later(entities, 1, 3)
    return drawn(entities)


@pytest.mark.parametrize("gated", [False, True])
def test_the_loss_is_the_published_sum_over_who_is_there(net: SmallCompany, batch: CompanyBatch, gated: bool) -> None:
    if gated:
        net.attach_gates(SqueezeExcite(11, reduction=4))
    objective = objective_of(net, RecipeLoss(fused=1.0, audio=0.4, face=0.4))
    assert isinstance(objective, CompanyObjective)
    value, sums = objective(batch, 3)
    every = torch.cat((batch.face, batch.company))
    said: dict[str, list[torch.Tensor]] = {"fused": [], "audio": [], "face": []}
    for i, rows in enumerate(batch.standing):  # one track at a time, one place at a time
        audio = net.audio_embedding(batch.audio[i : i + 1])
        faces = [net.pool(net.face_maps(every[r : r + 1])) for r in rows]
        vectors = [torch.cat((audio, face), -1) for face in faces]
        gates = [net.fusion_gate.excitation(v) if gated else 1.0 for v in vectors]
        said["fused"].append(net.across(torch.stack([v * g for v, g in zip(vectors, gates, strict=True)], 1))[0])
        said["audio"].append(torch.stack([net.lossA["FC"](audio)[0]] * 3))
        said["face"].append(torch.stack([net.lossV["FC"](face)[0] for face in faces]))
    there = batch.weight > 0
    assert int((~there).sum()) > 0
    parts = {name: cross_entropy(torch.stack(x)[there], batch.target[there]) for name, x in said.items()}
    assert value.item() == pytest.approx(parts["fused"] + 0.4 * parts["audio"] + 0.4 * parts["face"], rel=1e-5)
    assert sums["frames"] == batch.counted == int(there.sum())
    for name, part in parts.items():
        assert sums[name].item() / batch.counted == pytest.approx(part, rel=1e-5)
    assert sums["right"] == (torch.stack(said["fused"]).argmax(-1) == batch.target)[there].sum()


def test_who_is_not_there_adds_nothing(net: SmallCompany, batch: CompanyBatch) -> None:
    objective = objective_of(net, RecipeLoss(audio=0.4, face=0.4))
    turned = replace(batch, target=torch.where(batch.weight > 0, batch.target, 1 - batch.target))
    assert not torch.equal(turned.target, batch.target)
    results = []
    for some in (batch, turned):
        value, sums = objective(some, 1)
        results.append((value, sums["right"], *torch.autograd.grad(value, objective.parameters(), allow_unused=True)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_processes_mean_is_the_whole(net: SmallCompany) -> None:
    entities = people([9, 9, 9])
    later(entities, 1, 3)
    whole = objective_of(net, RecipeLoss(face=0.4))
    value, _ = whole(drawn(entities), 1)
    shared = objective_of(net, RecipeLoss(face=0.4), ranks=4)
    values = [shared(drawn(entities, rank=rank, ranks=4), 1)[0] for rank in range(4)]
    assert values[3].item() == 0, "there is no fourth"
    mean = torch.stack(values).mean()
    torch.testing.assert_close(mean, value)
    both = zip(*(torch.autograd.grad(v, net.parameters(), allow_unused=True) for v in (value, mean)), strict=True)
    for one, other in both:
        torch.testing.assert_close(one, other)


def test_loconets_places_are_those_of_its_forward() -> None:
    torch.manual_seed(0)
    model = create_model("loconet").requires_grad_(False)
    entities = people([6, 6, 6], seed=4)
    got = drawn(entities)
    audio = model.audio_embedding(got.audio)
    pooled = model.pool(model.face_maps(torch.cat((got.face, got.company))))
    faces = torch.stack([torch.stack([pooled[r] for r in rows]) for rows in got.standing])
    logits = model.across(torch.cat(list(model.meet(audio, faces).values()), -1))
    every = torch.cat((got.face, got.company))
    context = torch.stack([torch.stack([every[r] for r in rows[1:]], 1) for rows in got.standing])
    torch.testing.assert_close(logits[:, 0], model(got.face, got.audio, context=context).logits, rtol=1e-4, atol=1e-4)


# --- scoring ----------------------------------------------------------------------------------------------------------


def test_entities_are_scored_beside_those_who_share_most_frames() -> None:
    torch.manual_seed(2)
    net = SmallCompany().eval().requires_grad_(False)
    entities = people([20, 20, 20, 20, 9])
    later(entities, 1, 12)  # shares 8 frames with 0
    later(entities, 2, 3)  # 17
    later(entities, 3, 1)  # 19
    entities.change(4, entity=replace(entities.rows[4], video_id="w"))
    found = {i: margin for i, margin, _ in recipe_scoring.score_entities(net, entities, CPU)}
    assert sorted(found) == [0, 1, 2, 3, 4]
    own = entities.clips[0]
    context = np.zeros((20, 2, 112, 112), np.uint8)
    context[1:, 0], context[3:, 1] = entities.clips[3].face[:19], entities.clips[2].face[:17]
    sound = recipe_scoring.entity_sound(own.waveform, 25, 20, "log_mel")[None]
    pooled, _ = net.encode(torch.from_numpy(own.face)[None], sound)
    beside = torch.stack([net.pool(net.face_maps(torch.from_numpy(context[None, :, k]))) for k in range(2)], 2)
    by_hand = net.fuse(pooled | {"context": beside}).margin[0].numpy()
    np.testing.assert_allclose(found[0], by_hand, atol=1e-4)
    assert np.abs(found[0] - net.fuse(pooled).margin[0].numpy()).max() > 1e-3, "company changes what is said"
    single = entities.clips[4]
    sound = recipe_scoring.entity_sound(single.waveform, 25, 9, "log_mel")[None]
    alone = net.fuse(net.encode(torch.from_numpy(single.face)[None], sound)[0]).margin[0].numpy()
    np.testing.assert_allclose(found[4], alone, atol=1e-4)
    shares = [recipe_scoring.share_of(net, entities, rank, 3) for rank in range(3)]
    assert shares == [[0, 1, 2, 3], [4], []]
    in_two = dict((i, m) for r in range(3) for i, m, _ in recipe_scoring.score_entities(net, entities, CPU, 0, r, 3))
    assert all(np.array_equal(in_two[i], margin) for i, margin in found.items())


def test_long_entities_are_scored_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    model = create_model("loconet").requires_grad_(False)
    entities = people([21, 13])
    whole = {i: margin for i, margin, _ in recipe_scoring.score_entities(model, entities, CPU)}
    monkeypatch.setattr(recipe_scoring, "PIECE_FRAMES", 10)
    for i, margin, _ in recipe_scoring.score_entities(model, entities, CPU):
        np.testing.assert_allclose(margin, whole[i], atol=1e-4, rtol=1e-4)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeEntities]:
    found = {"train": people([24, 30, 18, 26, 22, 20], seed=1), "val": people([25, 18, 31], seed=2)}
    later(found["train"], 1, 6)
    later(found["val"], 0, 4)
    for module in (recipe_run, predict_asd):
        monkeypatch.setattr(module, "open_entities", lambda name, root, split, body: found[split])
    monkeypatch.setattr(recipe_run, "keep_large_blocks", lambda: None)
    return found


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[str]]:
    """``command(out, *more)``: arguments of three epochs with the package's recipe, quicker."""

    def arguments(out: str, *more: str) -> list[str]:
        return [
            *("loconet_ava", "--out", str(tmp_path / out), "--data", str(tmp_path), "--quiet", "--threads", "1"),
            *("--workers", "0", "--device", "cpu", "--set", "loop.epochs=3", "--set", "loop.lr=0.01", *more),
        ]

    return arguments


def log_of(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as stream:
        return [{k: v for k, v in line.items() if k != "seconds"} for line in csv.DictReader(stream)]


@pytest.mark.usefixtures("sets")
def test_learns_goes_on_to_the_same_bits_and_shares_its_work(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_run, "build", lambda config: SmallCompany())
    assert train.main(command("straight", "--set", "loop.save_every=1", "--set", "loop.epochs=8")) == 0
    log = log_of(tmp_path / "straight")
    assert float(log[-1]["loss_fused"]) < 0.9 * float(log[0]["loss_fused"])
    draw, seen = CompanyBatches.batch, []

    def interrupted(self: CompanyBatches, epoch: int, number: int) -> CompanyBatch:
        seen.append(epoch)
        if len(seen) == 4:  # within the second epoch
            raise KeyboardInterrupt
        return draw(self, epoch, number)

    with monkeypatch.context() as patch:
        patch.setattr(CompanyBatches, "batch", interrupted)
        assert train.main(command("out", "--set", "loop.save_every=1", "--set", "loop.epochs=8")) == 130
    torch.manual_seed(99)
    assert train.main([*command("out", "--set", "loop.save_every=1", "--set", "loop.epochs=8"), "--workers", "2"]) == 0
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert log == log_of(tmp_path / "out")


@pytest.mark.usefixtures("sets")
def test_two_processes_learn_what_one_does(
    command: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_run, "build", lambda config: SmallCompany(drop=0.0))
    assert train.main(command("one")) == 0
    in_two_processes(command("two"))
    one, two = (load_file(tmp_path / folder / "last.safetensors") for folder in ("one", "two"))
    for key, values in one.items():
        torch.testing.assert_close(two[key], values, rtol=1e-4, atol=1e-5)
    for a, b in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        for name in ("loss", "accuracy", "val_ap", "frames"):
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-3)


def test_loconet_itself_from_recipe_to_predictions(
    sets: dict[str, FakeEntities], command: Callable[..., list[str]], tmp_path: Path
) -> None:
    sets["train"], sets["val"] = people([7, 6, 5], seed=1), people([12, 7], seed=2)
    later(sets["val"], 1, 2)
    assert train.main(command("out", "--set", "loop.epochs=1", "--set", "loop.lr=1e-5")) == 0
    out, truth, scores = tmp_path / "out", tmp_path / "val_orig.csv", tmp_path / "scores.csv"
    card = tomllib.loads((out / "best.toml").read_text())
    assert (card["model"], card["audio"], card["geometry"]) == ("loconet", "log_mel", "box")
    assert load("loconet.published", weights=out / "best.safetensors").card.audio == "log_mel"
    words = [
        "--set",
        "ava",
        "--weights",
        str(out / "best.safetensors"),
        "--data",
        str(tmp_path),
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    assert predict_asd.main([*words, "--out", str(scores), "--quiet"]) == 0
    lines = [",".join(predict_asd.COLUMNS)]
    for entity in sets["val"].rows:
        for stamp, box, label in zip(entity.timestamps_s, entity.boxes, entity.labels, strict=True):
            said = ("NOT_SPEAKING", "SPEAKING_AUDIBLE")[label]
            where = ",".join(repr(float(v)) for v in box)
            lines.append(f"{entity.video_id},{float(stamp)!r},{where},{said},{entity.entity_id}")
    truth.write_text("\n".join(lines) + "\n")
    assert ava_average_precision(truth, scores) == pytest.approx(float(log_of(out)[0]["val_ap"]), abs=1e-5)


def test_the_published_beginning_of_its_ears_is_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(ModelConfig("loconet"))
    ears = {f"features.{k}": torch.randn_like(v) for k, v in model.model["audioEncoder"].features.state_dict().items()}
    torch.save(ears | {"embeddings.0.weight": torch.zeros(4096, 3)}, tmp_path / "vggish.pth")
    afresh = begin_with(model, tmp_path / "vggish.pth")
    for name, values in ears.items():
        assert torch.equal(model.state_dict()[f"model.audioEncoder.{name}"], values)
        assert f"model.audioEncoder.{name}" not in afresh
    assert "model.audioEncoder.deconv.weight" in afresh
    assert len(afresh) == len(model.state_dict()) - len(ears)


def test_other_networks_have_no_company() -> None:
    torch.manual_seed(0)
    model = build(ModelConfig("light_asd"))
    assert type(recipe_run.batches_of(model, people([5]), recipe())) is RecipeBatches
    assert type(recipe_run.batches_of(SmallCompany(), people([5]), recipe())) is CompanyBatches
