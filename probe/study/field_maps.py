"""Which column of a file is what: ready maps of known data sets, and the usual names.

A field is the name of a column, or text with {columns} in it ("{videoID}.mp4"; {file} is the name
of the file without its ending). A list means the first that the row has; of `video` the first that
is a file. `options` is a column with a list, a list of columns, or a column of text whose last
lines are the options ("A. ..."), which may be the question itself. `folders` says where the clips
of a file are: its name without the ending -> folders. `cut` is how folders end whose clips are cut
already, so that `start` and `end` do not count.

Checked against the columns of the data sets as they are published:

- MVBench (arXiv:2311.17005): a JSON list a task; `start` and `end` in seconds where only a part of
  the clip is meant, unless the clip is one of those cut already (`..._segment`). TVQA's folders of
  frames cannot be read.
- Video-MME (arXiv:2405.21075): parquet; files by their YouTube id.
- MLVU (arXiv:2406.04264): a JSON list a task with the clips in a folder of its name, or the parquet
  of lmms-eval, whose questions hold their options.
- TempCompass (arXiv:2403.00476): JSON {video: {aspect: [question and answer]}} or parquet;
  multi-choice, yes_no and caption_matching. Captioning needs a judge and is not here.
- POPE (arXiv:2305.10355): JSON lines about COCO images, or lmms-eval's parquet with the images.
"""

from __future__ import annotations

from typing import Any

FIELDS = (
    "id", "video", "question", "answer", "options", "cluster", "start", "end", "meta", "answer_as",
    "cut", "folders",
)  # fmt: skip
ANSWERS = ("auto", "text", "letter", "index")
USUAL: dict[str, Any] = {
    "id": ["id", "question_id", "qid", "uid"],
    "video": ["video", "video_path", "path", "image", "image_path"],
    "question": ["question", "text", "prompt"],
    "answer": ["answer", "label", "gold", "target", "caption"],
    "options": ["options", "candidates", "choices"],
    "cluster": [],
    "start": ["start"],
    "end": ["end"],
    "answer_as": "auto",
    "cut": None,
    "folders": {},
}
# Folder of the clips of each task of MVBench, by the name of its JSON file.
_MVBENCH = {
    "object_interaction": ["star/Charades_v1_480", "star/Charades_segment"],
    "action_sequence": ["star/Charades_v1_480", "star/Charades_segment"],
    "action_prediction": ["star/Charades_v1_480", "star/Charades_segment"],
    "action_localization": ["sta/sta_video", "sta/sta_video_segment"],
    "moving_count": ["clevrer/video_validation"],
    "fine_grained_pose": ["nturgbd", "nturgbd_convert"],
    "character_order": ["perception/videos"],
    "object_shuffle": ["perception/videos"],
    "egocentric_navigation": ["vlnqa"],
    "moving_direction": ["clevrer/video_validation"],
    "episodic_reasoning": ["tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment"],
    "fine_grained_action": ["Moments_in_Time_Raw/videos"],
    "scene_transition": ["scene_qa/video"],
    "state_change": ["perception/videos"],
    "moving_attribute": ["clevrer/video_validation"],
    "action_antonym": ["ssv2_video", "ssv2_video_mp4"],
    "unexpected_action": ["FunQA_test/test"],
    "counterfactual_inference": ["clevrer/video_validation"],
    "object_existence": ["clevrer/video_validation"],
    "action_count": ["perception/videos"],
}
MAPS: dict[str, dict[str, Any]] = {
    "mvbench": {
        "video": "{video}",
        "folders": _MVBENCH,
        "question": "question",
        "options": "candidates",
        "answer": "answer",
        "answer_as": "text",
        "cut": "_segment",
    },
    "videomme": {
        "id": "question_id",
        "video": [f"{folder}{{videoID}}.{end}" for folder in ("", "data/", "video/", "videos/")
                  for end in ("mp4", "MP4", "mkv")],
        "cluster": "videoID",
        "question": "question",
        "options": "options",
        "answer": "answer",
        "answer_as": "letter",
    },
    "mlvu": {
        "video": ["{file}/{video}", "video/{file}/{video}", "{video}", "{video_name}"],
        "question": "question",
        "options": ["candidates", "question"],
        "answer": "answer",
    },
    "tempcompass": {
        "id": "{video_id}/{dim}/{number}",
        "video": [f"{folder}{{video_id}}.mp4" for folder in ("", "videos/")],
        "cluster": "video_id",
        "question": "question",
        "options": "question",
        "answer": "answer",
    },
    "pope": {
        "id": "question_id",
        "video": ["image", "{image}.jpg", "{image_source}.jpg"],
        "question": ["text", "question"],
        "answer": ["label", "answer"],
    },
}  # fmt: skip
