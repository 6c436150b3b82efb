"""Columns and labels of AVA-ActiveSpeaker's csv files, which WASD shares."""

from __future__ import annotations

COLUMNS = (
    "video_id",
    "frame_timestamp",
    "entity_box_x1",
    "entity_box_y1",
    "entity_box_x2",
    "entity_box_y2",
    "label",
    "entity_id",
)
SPEAKING = "SPEAKING_AUDIBLE"
#: Labels by the ``label_id`` of TalkNet-style files; only the middle one counts as speaking.
LABELS = ("NOT_SPEAKING", SPEAKING, "SPEAKING_NOT_AUDIBLE")
