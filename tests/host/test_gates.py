"""The gates of `require_audit`: what they look at, once, and what stands in a picture's place."""

import contextlib
import json

import comfy.latent_formats
import comfy.sd
import execution
import latent_preview
import numpy as np
import pytest
import torch
from comfy.cli_args import LatentPreviewMethod, args
from gated import Redness, image, own_folders
from modular_safety_lora.audit.detectors import registry
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import Opinion
from modular_safety_lora.drawing.notice import notice
from modular_safety_lora.gates import verdicts
from modular_safety_lora.gates.keeper import Closed, Keeper
from modular_safety_lora.gates.look import Inspector
from modular_safety_lora.gates.seen import Seen
from modular_safety_lora.gates.wanted import RequireAudit
from modular_safety_lora.nodes import policy
from modular_safety_lora.nodes.settings import FILE
from server import PromptServer
from ways_of_nodes import latent, vae

import nodes

RED, GREY = (np.full((64, 80, 3), shade, np.uint8) for shade in ((250, 0, 0), (90, 90, 90)))
PLAIN = torch.from_numpy(np.array(notice(80, 64))) / 255.0
RULES = {"audit_presets": {"red": {"detector": "redness", "thresholds": {"RED": 0.5}}}}


@pytest.fixture(scope="module")
def redness():
    made = Redness()
    registry.register("redness", Redness.classes, lambda *_: made)
    yield made
    registry._known.pop("redness"), registry._made.pop("redness", None)


@pytest.fixture
def hold(redness, tmp_path):
    """Writes settings and holds them until the end, in folders of the test's own."""
    with contextlib.ExitStack() as done:
        done.enter_context(own_folders(tmp_path))

        def held(**wanted) -> None:
            text = json.dumps({"require_audit": {"preset": "red", **wanted}, **RULES})
            (tmp_path / "user" / FILE).write_text(text)
            done.callback(policy.install())

        yield held


@pytest.fixture
def heard():
    found: list[verdicts.Verdict] = []
    verdicts.listeners.append(found.append)
    yield found
    verdicts.listeners.remove(found.append)


def touched() -> dict:
    """What the gates put something of their own in the place of."""
    return {
        "decode": comfy.sd.VAE.decode,
        "decode_tiled": comfy.sd.VAE.decode_tiled,
        "results": execution.get_output_data,
        "override": execution.set_preview_method,
        "previewer": latent_preview.get_previewer,
        "default": latent_preview.default_preview_method,
        "method": args.preview_method,
        "messages": PromptServer.send_bytes,
    }


def decode(*pictures: np.ndarray) -> torch.Tensor:
    return nodes.VAEDecode().decode(vae(), latent(*pictures))[0]


def test_without_the_setting_nothing_of_the_host_is_touched(tmp_path):
    before = touched()
    with own_folders(tmp_path):
        (tmp_path / "user" / FILE).write_text('{"require_audit": false}')
        taken_away = policy.install()
        assert touched() == before
        taken_away()
        (tmp_path / "user" / FILE).write_text('{"require_audit": true}')
        taken_away = policy.install()
        now = touched()
        assert all(now[name] != before[name] for name in ("decode", "decode_tiled", "previewer"))
        taken_away()
    assert touched() == before


def test_the_rest_of_the_batch_goes_on(hold):
    hold()
    out = decode(GREY, RED, GREY, RED)
    assert torch.equal(out[0], out[2]) and torch.allclose(out[0], image(GREY)[0], atol=1e-6)
    assert torch.equal(out[1], PLAIN) and torch.equal(out[3], PLAIN)


@pytest.mark.parametrize("how", ["blur", "black"])
def test_all_of_a_flagged_picture_is_hidden(hold, how):
    hold(flagged=how)
    half = np.concatenate([RED[:40], GREY[40:]])
    out = decode(half)[0]
    if how == "black":
        assert not out.any()
    else:
        rows = out.mean(dim=(1, 2))
        assert len(rows.unique()) > 8 and (out - image(half)[0]).abs().max() > 0.1


def test_stop_ends_the_run_and_says_why(hold):
    hold(flagged="stop")
    with pytest.raises(Closed, match="1 of 2 pictures decoded here was kept back.*RED 1"):
        decode(GREY, RED)
    assert decode(GREY).shape == (1, 64, 80, 3)


def test_a_video_with_one_flagged_frame_is_withheld_whole(hold):
    hold()
    latents = torch.stack([latent(GREY, RED, GREY)["samples"], latent(GREY, GREY, GREY)["samples"]])
    video = vae()
    video.latent_dim = 3
    out = video.decode(latents.movedim(1, 2))
    assert out.shape == (2, 3, 64, 80, 3)
    assert all(torch.equal(frame, PLAIN) for frame in out[0])
    assert torch.allclose(out[1], image(GREY), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_keep_their_shape(hold, channels):
    hold()
    shade = np.array([[250, 0, 0, 128]], np.uint8)
    picture = np.broadcast_to(shade, (64, 80, 4)) if channels == 4 else GREY[..., :1]
    out = decode(np.array(picture))
    assert out.shape == (1, 64, 80, channels)
    if channels == 4:
        assert (out[..., 3] == 1).all() and len(out[..., 0].unique()) > 10


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_looked_at(hold, monkeypatch, kind):
    monkeypatch.setattr(comfy.sd.VAE, "vae_output_dtype", lambda self: kind)
    hold()
    out = decode(RED)
    assert out.dtype == kind and torch.allclose(out.float(), PLAIN, atol=0.01)


def test_not_a_number_does_not_pass(hold):
    hold()
    with pytest.raises(Closed, match="can't be looked at.*not numbers"):
        vae().decode(torch.full((1, 3, 64, 64), torch.nan))


@pytest.mark.parametrize(
    "shape", [(0, 64, 64, 3), (1, 0, 64, 3), (1, 64, 64, 7), (64, 64, 3), (1, 2, 64, 64, 2)]
)
def test_what_is_no_picture_does_not_pass(redness, shape):
    opinion = Opinion(PRESETS["faces"], redness)
    keeper = Keeper(RequireAudit(), Inspector(lambda: opinion, Seen()))
    with pytest.raises(Closed, match="Nothing that can be looked at came"):
        keeper.tensor(torch.zeros(shape), "decode")


def test_sound_passes(hold, redness):
    hold()
    sound = vae()
    sound.latent_dim, sound.output_channels = 1, 2
    sound.memory_used_decode = lambda *_: 1
    looks = redness.looks
    assert sound.decode(torch.zeros(1, 2, 500)).shape == (1, 500, 2) and redness.looks == looks
    sound.latent_dim, sound.output_channels = 2, 3
    with pytest.raises(Closed):
        sound.decode(torch.zeros(1, 3, 500))


def test_a_detector_that_cannot_be_loaded_lets_nothing_pass(hold, monkeypatch):
    hold()
    monkeypatch.setitem(registry._made, "redness", registry._made.get("redness"))
    del registry._made["redness"]

    def missing(*_):
        raise registry.DetectorMissing("Run install.py.")

    monkeypatch.setitem(registry._known, "redness", registry._Known(Redness.classes, missing))
    with pytest.raises(Closed, match=r"can't be looked at.*Run install\.py"):
        decode(GREY)


def test_a_listener_that_fails_closes(hold, heard, monkeypatch):
    hold()
    decode(GREY, RED)
    clean, flagged = heard
    done = [(each.flagged, each.done) for each in heard]
    assert done == [(False, "passed"), (True, "withhold")]
    assert (flagged.where, flagged.preset, flagged.counts) == ("decode", "red", {"RED": 1})
    assert len(flagged.detector) == len(flagged.digest) == 64 and clean.digest != flagged.digest

    def full(verdict):
        raise OSError("the disk is full")

    monkeypatch.setattr(verdicts, "listeners", [full])
    with pytest.raises(OSError, match="disk is full"):
        decode(GREY)


def test_the_door_alone_does_not_change_what_flows_on(hold):
    hold(gates=["door"])
    assert torch.allclose(decode(RED), image(RED), atol=1e-6)


def test_no_latent_preview_is_made_whatever_a_prompt_asks(hold, monkeypatch):
    asked = LatentPreviewMethod.Latent2RGB
    monkeypatch.setattr(args, "preview_method", asked)
    monkeypatch.setattr(latent_preview, "default_preview_method", asked)

    def previewer():
        return latent_preview.get_previewer("cpu", comfy.latent_formats.SD15())

    assert previewer() is not None
    hold(gates=["decode"])
    for each in (execution, latent_preview):
        each.set_preview_method("latent2rgb")
        assert args.preview_method == LatentPreviewMethod.NoPreviews and previewer() is None
    args.preview_method = asked  # as a pack may
    assert previewer() is None


def nothing_passes(model) -> None:
    with pytest.raises(Closed, match="No picture is shown until it is corrected"):
        decode(GREY)
    with pytest.raises(policy.SettingsError, match="No model samples until"):
        model.model.apply_model(None, None)


def test_an_unknown_preset_or_host_closes(hold, monkeypatch, caplog, model):
    hold(preset="redd")
    assert "require_audit: There is no audit preset 'redd'; there are" in caplog.text
    nothing_passes(model)
    monkeypatch.delattr(latent_preview, "get_previewer")
    hold()
    assert "require_audit can't hold on this ComfyUI" in caplog.text
    nothing_passes(model)
