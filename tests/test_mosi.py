"""CMU-MOSI: the label file in its forms, the standard split, and frames out of videos."""

import csv
import re
from collections import Counter

import av
import numpy as np
import pytest
from PIL import Image

from fusion_keras.data.mosi import read_mosi
from fusion_keras.data.splits import STANDARD_MOSI_FOLDS
from fusion_keras.data.video import VideoError, extract_middle_frames, middle_frame
from fusion_keras.errors import UsageError

# Two clips of one video in each standard split.
VIDEOS = {"train": "03bSnISJMiM", "valid": "_dI--eQ6qVU", "test": "f_pcplsH_V0"}
ROWS = [
    {"video_id": video, "clip_id": str(clip), "text": "words", "label": score, "mode": split}
    for split, video in VIDEOS.items()
    for clip, score in ((1, "-0.2"), (2, "0.0"))
]


@pytest.fixture
def read(tmp_path):
    """read(rows, **options) -> Records of a label file with these rows."""

    def read(rows, **options):
        path = tmp_path / "label.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return read_mosi(path, cache_dir=tmp_path / "cache", **options)

    return read


def _without(rows, *columns):
    return [{key: row[key] for key in row if key not in columns} for row in rows]


def _changed(row, **cells):
    return [{**r, **cells} if i == row else r for i, r in enumerate(ROWS)]


def write_video(path, frames=21, container=None, options=None):
    """A video of 32 x 32 whose frame i is grey of value 10 i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        stream = output.add_stream("libx264", rate=10, options={"g": "5"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            pixels = np.full((32, 32, 3), 10 * index, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path


def shown(frame):
    """The number of the frame that is seen."""
    return round(frame.mean() / 10)


def test_labels_scores_and_groups(read):
    records = read(ROWS)
    assert records.name == "mosi"
    assert records.ids[4:] == ["f_pcplsH_V0_1", "f_pcplsH_V0_2"]
    assert records.groups[:3] == ["03bSnISJMiM", "03bSnISJMiM", "_dI--eQ6qVU"]
    assert records.splits == ["train", "train", "valid", "valid", "test", "test"]
    assert records.classes == ("negative", "non-negative")
    assert records.labels.tolist() == [0, 1] * 3  # zero is non-negative
    assert records.scores == pytest.approx([-0.2, 0.0] * 3)
    assert "image" not in records.raw


@pytest.mark.parametrize("separator", ["_", "$_$"])
def test_video_and_clip_in_one_column(read, separator):
    rows = [{"id": f"{row['video_id']}{separator}{row['clip_id']}", **row} for row in ROWS]
    records = read(_without(rows, "video_id", "clip_id"))
    assert records.ids == read(ROWS).ids
    assert records.groups == read(ROWS).groups


def test_without_a_split_column_the_standard_split_holds(read):
    assert read(_without(ROWS, "mode")).splits == read(ROWS).splits
    renamed = [{**_without([row], "mode")[0], "split": row["mode"]} for row in ROWS]
    assert read(renamed).splits == read(ROWS).splits


def test_deviations_from_the_standard_split_are_named(read):
    strange = {**ROWS[0], "video_id": "other", "label": "1"}
    notes = " | ".join(read([*_changed(1, mode="test"), strange]).notes)
    assert "1 videos are not in the standard split: other (train)" in notes
    assert "standard one: 03bSnISJMiM (test, standard train)" in notes
    assert "90 videos of the standard split have no row: " in notes
    assert "zhpQhgha_KU (test)" in notes
    assert "label.csv: valid has 2 rows, the standard split 229" in notes
    assert "1 groups are in more than one split: 03bSnISJMiM" in notes


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (_changed(1, label="3.1"), "got the label '3.1' in label.csv line 3, wanted a sentiment"),
        (_changed(1, label="good"), "got the label 'good' in label.csv line 3"),
        (_changed(1, label=""), "got the label '' in label.csv line 3"),
        (_changed(1, mode="holdout"), "got the split 'holdout' in label.csv line 3"),
        (_changed(1, clip_id="1"), "id '03bSnISJMiM_1' twice"),
        (_changed(1, video_id="../up"), r"got the video and clip '../up, 2' in label.csv line 3"),
        (_changed(1, clip_id="../../x"), "wanted names of letters"),
        (_changed(1, clip_id=""), "wanted names of letters"),
        (_changed(1, text=" "), "1 unusable of 6 rows in label.csv .*line 3: empty text"),
        (_without(_changed(1, video_id="other"), "mode"), "'other' .* not in CMU-MOSI's standard"),
        (_without(ROWS, "text"), "got no column 'text'"),
        (_without(ROWS, "label"), "got no column 'label'"),
        (_without(ROWS, "video_id"), "got no column 'video_id' .*or `id` for video and clip"),
        (_without(ROWS, "clip_id"), "got no column 'clip_id'"),
        ([{"id": "x", **r} for r in _without(ROWS, "video_id", "clip_id")], "video and clip 'x'"),
        (ROWS[:4], "got no test rows"),
    ],
)
def test_a_broken_label_file_ends_with_a_sentence(read, rows, message):
    with pytest.raises(UsageError, match=message):
        read(rows)


def test_folders_must_exist_and_be_one(read, tmp_path):
    with pytest.raises(UsageError, match="which is no folder"):
        read(ROWS, raw_dir=tmp_path / "none")
    with pytest.raises(UsageError, match="both raw_dir and frames_dir"):
        read(ROWS, raw_dir=tmp_path, frames_dir=tmp_path)


@pytest.mark.parametrize("name", ["{0}_{1}.jpg", "{0}_{1}.png", "{0}/{1}.jpg", "{0}/{1}.jpeg"])
def test_ready_frames(read, tmp_path, name):
    for row in ROWS[:-1]:
        path = tmp_path / "frames" / name.format(row["video_id"], row["clip_id"])
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    records = read([*ROWS], frames_dir=tmp_path / "frames", max_skipped=0.2)
    assert len(records) == len(records.raw["image"]) == 5
    assert records.raw["image"][0] == tmp_path / "frames" / name.format("03bSnISJMiM", "1")
    assert "label.csv line 7: no frame f_pcplsH_V0_2" in records.skips.entries[0]


def test_clips_give_their_middle_frame_once(read, tmp_path):
    raw = tmp_path / "Raw"
    for index, row in enumerate(ROWS[:-1]):
        write_video(raw / row["video_id"] / f"{row['clip_id']}.mp4", frames=2 * index + 3)
    (raw / VIDEOS["test"] / "2.mp4").write_bytes(b"no video")
    records = read(ROWS, raw_dir=raw, max_skipped=0.2)
    frames = [np.asarray(Image.open(path)) for path in records.raw["image"]]
    assert [shown(frame) for frame in frames] == [1, 2, 3, 4, 5]
    assert "line 7: f_pcplsH_V0/2.mp4: not a readable video" in records.skips.entries[0]
    with pytest.raises(UsageError, match="got 1 unusable of 6 rows"):
        read(ROWS, raw_dir=raw)

    times = [path.stat().st_mtime_ns for path in records.raw["image"]]
    again = read(ROWS, raw_dir=raw, max_skipped=0.2)
    assert [path.stat().st_mtime_ns for path in again.raw["image"]] == times
    write_video(raw / "03bSnISJMiM" / "1.mp4", frames=15)
    changed = read(ROWS, raw_dir=raw, max_skipped=0.2)
    assert shown(np.asarray(Image.open(changed.raw["image"][0]))) == 7
    assert changed.raw["image"][1:] == records.raw["image"][1:]


def test_a_clip_linked_from_elsewhere_is_refused(read, tmp_path):
    raw = tmp_path / "Raw" / VIDEOS["train"]
    raw.mkdir(parents=True)
    (raw / "1.mp4").symlink_to(write_video(tmp_path / "secret.mp4"))
    with pytest.raises(UsageError, match="line 2, wanted one that stays inside"):
        read(ROWS, raw_dir=raw.parent, max_skipped=1.0)


@pytest.mark.parametrize("frames", [1, 2, 3, 20, 21])
def test_middle_frame(tmp_path, frames):
    video = write_video(tmp_path / "x.mp4", frames)
    assert middle_frame(video).shape == (32, 32, 3)
    assert shown(middle_frame(video)) == frames // 2


def test_middle_frame_without_a_duration(tmp_path):
    video = write_video(tmp_path / "x.h264", container="h264")
    assert shown(middle_frame(video)) == 10


def test_middle_frame_of_what_a_truncated_file_holds(tmp_path):
    whole = write_video(tmp_path / "x.mp4", 25, options={"movflags": "faststart"})
    with av.open(str(whole)) as container:
        key_frames = [packet.pos for packet in container.demux() if packet.is_keyframe]
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: key_frames[2]])
    # Every fifth is a key frame: 0 to 9 are left, of which a decoder cut short may lose the last.
    assert shown(middle_frame(tmp_path / "cut.mp4")) in (4, 5)


def test_files_that_are_no_videos(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    whole = write_video(tmp_path / "x.mp4").read_bytes()
    (tmp_path / "no_index.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    for name in ("empty", "text", "no_index", "sound"):
        with pytest.raises(VideoError, match=r"not a readable video|holds no frame") as caught:
            middle_frame(tmp_path / f"{name}.mp4")
        assert str(tmp_path) not in str(caught.value)


def test_a_frame_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="from the frame cache"):
        extract_middle_frames([write_video(tmp_path / "x.mp4")], tmp_path / "file")


def test_the_real_label_file_is_the_standard_split(data_root, tmp_path):
    records = read_mosi(data_root / "mosi" / "label.csv", cache_dir=tmp_path)
    assert (records.notes, records.skips.entries) == ((), [])
    assert Counter(records.splits) == {"train": 1284, "valid": 229, "test": 686}
    splits = np.array(records.splits)
    negatives = Counter(splits[records.labels == 0].tolist())
    assert negatives == {"train": 552, "valid": 92, "test": 379}
    for split, ids in STANDARD_MOSI_FOLDS.items():
        assert set(np.array(records.groups)[splits == split]) == ids


def test_the_faces_as_ready_frames(data_root, tmp_path):
    frames = data_root / "mosi_fer" / "frames"
    records = read_mosi(data_root / "mosi" / "label.csv", frames_dir=frames, cache_dir=tmp_path)
    assert len(records) == 2199
    assert all(p.stem == name for p, name in zip(records.raw["image"], records.ids, strict=True))


def test_the_middle_frame_of_a_real_clip(data_root, tmp_path):
    (video,) = (data_root / "mosi" / "Raw").glob("*/*.mp4")
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    middle = middle_frame(video)
    assert middle.shape == (360, 480, 3)
    assert np.array_equal(middle, frames[len(frames) // 2])
    (path,) = extract_middle_frames([video], tmp_path)
    assert np.array_equal(np.asarray(Image.open(path)), middle)


def test_most_real_clips_missing_is_an_error_that_counts_them(data_root, tmp_path):
    folder = data_root / "mosi"
    message = re.escape("got 2198 unusable of 2199 rows in label.csv (label.csv line 2: ")
    with pytest.raises(UsageError, match=message):
        read_mosi(folder / "label.csv", raw_dir=folder / "Raw", cache_dir=tmp_path)
