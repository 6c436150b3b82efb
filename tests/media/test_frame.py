"""Pixels of a decoded picture: rotation, odd sizes, pixel formats and ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_explain.media import Frame, VideoReader, probe
from asd_explain.media.frame import expand_luma


def frames_of(path: Path) -> list[Frame]:
    with VideoReader(path, threads=1) as reader:
        return list(reader)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_undone(clip, picture_of, rotation):
    path = clip("r.mp4", [0.0, 0.04], size=(96, 64), rotation=rotation)
    frame = frames_of(path)[1]
    expected = np.rot90(picture_of(1, 96, 64), -rotation // 90)
    info = probe(path)
    assert info.rotation == rotation
    assert (info.width, info.height) == expected.shape[1::-1] == (frame.width, frame.height)
    luma = frame.luma()
    assert luma.shape == expected.shape[:2]
    gray = expected @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma - gray).mean() < 3
    assert np.abs(frame.rgb().astype(float) - expected).mean() < 6
    planes = frame.planes()
    assert planes.y.shape == luma.shape
    assert planes.u.shape == (luma.shape[0] // 2, luma.shape[1] // 2)
    small = frame.bgr(info.width // 2, info.height // 2)
    assert small.shape == (info.height // 2, info.width // 2, 3)
    assert np.abs(small[1::4, 1::4, ::-1].astype(float) - expected[3::8, 3::8]).mean() < 20


@pytest.mark.parametrize("size", [(97, 65), (33, 64), (64, 35)])
def test_odd_sizes_are_padded_only_in_planes(clip, size):
    path = clip("odd.mkv", [0.0, 0.04], size=size, codec="ffv1", pixel_format="yuv420p", options={})
    frame = frames_of(path)[0]
    width, height = size
    assert frame.luma().shape == (height, width)
    assert frame.bgr(width, height).shape == (height, width, 3)
    planes = frame.planes()
    assert planes.y.shape == (height + height % 2, width + width % 2)
    assert planes.u.shape == planes.v.shape == (planes.y.shape[0] // 2, planes.y.shape[1] // 2)
    np.testing.assert_array_equal(expand_luma(planes.y)[:height, :width], frame.luma())
    np.testing.assert_array_equal(planes.y[:, -1], planes.y[:, width - 1])
    np.testing.assert_array_equal(planes.y[-1], planes.y[height - 1])


@pytest.mark.parametrize(
    "pixel_format",
    ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "gray", "bgr0", "gbrp10le", "yuva420p"],
)
def test_pixel_formats_give_the_same_gray(clip, picture_of, pixel_format):
    path = clip("f.mkv", [0.0, 0.04], codec="ffv1", pixel_format=pixel_format, options={})
    frame = frames_of(path)[1]
    gray = picture_of(1, 96, 64) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(frame.luma() - gray).mean() < 2.5
    planes = frame.planes()
    assert planes.y.dtype == np.uint8
    assert planes.y.shape == (64, 96)
    assert planes.u.shape == (32, 48)
    assert planes.full_range == (pixel_format == "gray")
    if pixel_format == "gray":
        assert (planes.u == 128).all()
    else:
        # The lower half is tinted: red above blue.
        assert planes.v[-1].mean() > 130 > planes.u[-1].mean()


@pytest.mark.parametrize("full_range", [False, True])
def test_luma_is_full_range_and_planes_keep_the_clips(clip, full_range):
    ramp = np.repeat(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    path = clip("a.mp4", [0.0, 0.04], pictures=lambda _: ramp, full_range=full_range)
    frame = frames_of(path)[0]
    assert probe(path).full_range is full_range
    assert frame.luma().min() <= 3
    assert frame.luma().max() >= 252
    planes = frame.planes()
    assert planes.full_range is full_range
    assert bool(planes.y.max() > 245) is full_range


def test_expand_luma_is_the_table():
    every = np.arange(256, dtype=np.uint8)[None]
    table = np.clip(np.round((np.arange(256) - 16) * 255 / 219), 0, 255)
    np.testing.assert_array_equal(expand_luma(every)[0], table)


def test_planes_are_copies_and_luma_is_kept(clip):
    frame = frames_of(clip("a.mp4", [0.0]))[0]
    planes = frame.planes()
    before = frame.luma().copy()
    planes.y[:] = 0
    np.testing.assert_array_equal(frame.luma(), before)
    assert frame.planes().y.any()
    assert frame.luma() is frame.luma()
