"""What generating reads and writes: pictures, videos and masks of any kind, files that appear when complete."""

import struct
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from drivesim.cli_generate.files import (
    MAX_FRAMES,
    check_out,
    fingerprint,
    read_actions,
    read_clip,
    read_mask,
    sheet_of,
    write_generated,
)
from drivesim.errors import InputError
from drivesim.generate import Generated
from drivesim.scene.media import MediaFile, read_picture
from drivesim.video import read_image, read_video, write_image, write_video

SIZE = (64, 96)
RED, BLUE = (200, 30, 10), (20, 60, 220)


@pytest.fixture
def halves():
    """A picture that is red on the left and blue on the right."""
    picture = np.empty((40, 60, 3), dtype=np.uint8)
    picture[:, :30], picture[:, 30:] = RED, BLUE
    return picture


def generated(samples=1, frames=3):
    pictures = np.random.default_rng(0).integers(0, 255, (samples, frames, *SIZE, 3), dtype=np.uint8)
    return Generated(
        frames=pictures,
        token_ids=np.zeros((samples, frames, 24), dtype=np.int64),
        is_given=np.zeros((frames, 24), dtype=bool),
        rate_hz=8.0,
    )


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("RGB", "a.png"),
        ("RGBA", "a.png"),
        ("P", "a.png"),
        ("RGB", "a.webp"),
        ("RGB", "a.bmp"),
        ("RGB", "a.tiff"),
        ("CMYK", "a.jpg"),
        ("CMYK", "a.tiff"),
        ("RGB", "a.jpg"),
    ],
)
def test_pictures_of_all_modes_look_the_same(tmp_path, halves, mode, name):
    path = tmp_path / name
    PillowImage.fromarray(halves).convert(mode).save(path)
    frame = read_picture(MediaFile(path=path), SIZE)
    assert (frame.shape, frame.dtype) == ((*SIZE, 3), np.uint8)
    tolerance = 45 if mode == "P" else 8  # a palette of 6 x 6 x 6 colours
    assert np.abs(frame[32, 10].astype(int) - RED).max() <= tolerance
    assert np.abs(frame[32, 85].astype(int) - BLUE).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
def test_grey_pictures_are_grey(tmp_path, mode):
    ramp = np.linspace(0, 255, 60).astype(np.uint8)[None].repeat(40, axis=0)
    if mode == "I;16":
        PillowImage.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "a.png")
    else:
        PillowImage.fromarray(ramp).convert(mode).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 0] == picture[..., 2]).all()
    assert picture[20, 0, 0] < 10
    assert picture[20, 59, 0] > 245


def test_what_is_transparent_is_white(tmp_path, halves):
    path = tmp_path / "a.png"
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535)):
        bgra = np.zeros((4, 4, 4), dtype=dtype)
        bgra[:2, :, 2:] = most  # red above, black below; of the lower rows one is half there
        bgra[2, :, 3] = most // 2
        cv2.imwrite(str(path), bgra)
        picture = read_image(path)
        assert picture[0, 0].tolist() == [255, 0, 0]
        assert picture[2, 0].tolist() == [128, 128, 128]
        assert picture[3, 0].tolist() == [255, 255, 255]
        assert read_image(path, backdrop=0)[3, 0].tolist() == [0, 0, 0]
    webp = PillowImage.fromarray(halves)
    webp.putalpha(0)
    webp.save(tmp_path / "a.webp", lossless=True)
    assert (read_image(tmp_path / "a.webp") == 255).all()


CORNERS = {1: "left top", 2: "right top", 3: "right bottom", 4: "left bottom"} | {
    5: "left top",
    6: "right top",
    7: "right bottom",
    8: "left bottom",
}


def red_corner(picture):
    """Return where a picture is red; it is nowhere else."""
    height, width = picture.shape[:2]
    is_red = np.abs(picture.astype(int) - RED).max(-1) < 12
    assert is_red.sum() == pytest.approx(height * width / 4, rel=0.05)
    rows, columns = is_red.nonzero()
    return f"{'left' if columns.mean() < width / 2 else 'right'} {'top' if rows.mean() < height / 2 else 'bottom'}"


@pytest.mark.parametrize("orientation", list(CORNERS))
@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("RGB", "a.jpg"),
        ("RGB", "a.png"),
        ("RGBA", "a.png"),
        ("RGB", "a.webp"),
        ("RGBA", "a.webp"),
        ("RGB", "a.tiff"),
        ("RGBA", "a.tiff"),
    ],
)
def test_pictures_are_turned_as_their_exif_says(tmp_path, orientation, mode, name):
    """A quarter is red; with transparency all of it is, and the quarter alone is there."""
    pixels = np.full((32, 64, 4), (*RED, 0) if mode == "RGBA" else (*BLUE, 255), dtype=np.uint8)
    pixels[:16, :32] = (*RED, 255)
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    exactly = {"a.webp": {"lossless": True, "exact": True}, "a.jpg": {"quality": 100, "subsampling": 0}}
    options = exactly.get(name, {})
    PillowImage.fromarray(pixels).convert(mode).save(tmp_path / name, exif=exif, **options)
    turned = read_image(tmp_path / name)
    assert turned.shape == ((32, 64, 3) if orientation < 5 else (64, 32, 3))
    assert red_corner(turned) == CORNERS[orientation]


def write_deep_png(path, exif):
    """Write a picture of 16 bits and transparency, a quarter of it red."""
    bgra = np.zeros((32, 64, 4), dtype=np.uint16)
    bgra[:16, :32] = [*(257 * value for value in RED[::-1]), 65535]
    png = cv2.imencode(".png", bgra)[1].tobytes()
    chunk = b"eXIf" + exif
    header = 8 + 25  # signature and IHDR
    chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(png[:header] + chunk + png[header:])


@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_transparent_pictures_are_turned_too(tmp_path, order):
    entries = [(0x010F, 3, 1, 9), (0x0112, 3, 1, 6)]
    exif = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    exif += b"".join(struct.pack(f"{order}HHIHxx", *entry) for entry in entries)
    write_deep_png(tmp_path / "a.png", exif)
    assert red_corner(read_image(tmp_path / "a.png")) == "right top"


@pytest.mark.parametrize("exif", [b"II*\0", b"MM\0*\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x05"])
def test_a_picture_with_damaged_exif_is_upright(tmp_path, exif):
    write_deep_png(tmp_path / "a.png", exif)
    assert red_corner(read_image(tmp_path / "a.png")) == "left top"


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (640, 960), (65, 97)])
def test_pictures_of_all_sizes_cover_the_frame(tmp_path, shape):
    write_image(tmp_path / "a.png", np.full((*shape, 3), 77, dtype=np.uint8))
    assert (read_picture(MediaFile(path=tmp_path / "a.png"), SIZE) == 77).all()


def test_pictures_are_cropped_evenly(tmp_path):
    picture = np.zeros((64, 192, 3), dtype=np.uint8)
    picture[:, 48:144] = 255
    write_image(tmp_path / "a.png", picture)
    assert (read_picture(MediaFile(path=tmp_path / "a.png"), SIZE) == 255).all()


def test_a_picture_of_too_many_pixels_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise cv2.error("CV_IO_MAX_IMAGE_PIXELS")

    write_image(tmp_path / "a.png", np.zeros((4, 4, 3), dtype=np.uint8))
    monkeypatch.setattr(cv2, "imdecode", refuse)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_picture(MediaFile(path=tmp_path / "a.png"), SIZE)


# --------------------------------------------------------------------------------------------------- videos


def write_timed(path, times_ms):
    """Write a video of grey frames, each 10 brighter than the one before, at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 30 + 10 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_frames_are_read_by_time_not_by_number(tmp_path):
    path = tmp_path / "a.mp4"
    write_timed(path, [0, 500, 520, 540, 560, 580, 1000, 1100])
    frames = read_clip(path, SIZE, rate_hz=4.0)
    shown = ((frames.mean(axis=(1, 2, 3)) - 30) / 10).round().tolist()
    assert shown == [0, 0, 1, 5]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("count", [1, 2, 16])
def test_what_is_written_is_read_again(tmp_path, suffix, count):
    path = tmp_path / f"a{suffix}"
    greys = np.linspace(20, 220, count)
    write_video(path, [np.full((*SIZE, 3), grey, dtype=np.uint8) for grey in greys], 8.0)
    frames = read_clip(path, SIZE, rate_hz=8.0)
    assert len(frames) == count
    assert np.abs(frames.mean(axis=(1, 2, 3)) - greys).max() < 7  # GIF dithers
    assert len(read_clip(path, SIZE, rate_hz=8.0, num_frames=1)) == 1


def test_videos_of_high_rates_are_read_at_their_times(tmp_path):
    path = tmp_path / "a.mp4"
    write_timed(path, [0, 5, 10, 15, 125, 130, 135])  # two hundred frames a second
    frames = read_clip(path, SIZE, rate_hz=8.0, num_frames=1)
    assert frames.mean() == pytest.approx(30, abs=3)


def test_parts_that_are_not_there_or_too_long_are_refused(tmp_path):
    path = tmp_path / "a.mp4"
    write_timed(path, [0, 1000, 2000])
    with pytest.raises(InputError, match=r"400 frames are asked of .*a\.mp4, which has"):
        read_clip(path, SIZE, rate_hz=8.0, num_frames=400)
    with pytest.raises(InputError, match=f"at most {MAX_FRAMES} are read"):
        read_clip(path, SIZE, rate_hz=1000.0)


def test_videos_without_frames_are_named(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "empty.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("sound.mp4", "empty.mkv", "text.mp4", "none.mp4", "folder.mp4"):
        with pytest.raises(InputError, match=name):
            read_clip(tmp_path / name, SIZE, rate_hz=8.0)


# ---------------------------------------------------------------------------------------------------- masks


def test_a_rectangle_is_in_pixels_of_the_frame():
    mask = read_mask("90, 0,6,64", (1, *SIZE))
    assert mask.shape == SIZE
    assert mask[:, 90:].all()
    assert not mask[:, :90].any()


@pytest.mark.parametrize(
    "text",
    ["0,0,97,1", "0,60,10,5", "-1,0,5,5", "0,0,0,5", "1,2,3", "1,2,3,4,5", "0.5,0,1,1", "0,0,1e3,1", ",,,"],
)
def test_bad_rectangles_are_named(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=text):
        read_mask(text, (1, *SIZE))


@pytest.mark.parametrize("shape", [(64, 96), (128, 192), (32, 48), (640, 960)])
def test_white_is_drawn_anew_at_any_size(tmp_path, shape):
    white = np.zeros((*shape, 3), dtype=np.uint8)
    white[shape[0] // 2 :, : shape[1] // 4] = 255
    write_image(tmp_path / "mask.png", white)
    mask = read_mask(str(tmp_path / "mask.png"), (4, *SIZE))
    assert mask[32:, :24].all()
    assert mask.sum() == 32 * 24


def test_a_mask_is_cropped_as_its_picture_is(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
    picture[8:20, 10:40] = 255
    white = np.repeat((picture == 255).all(-1, keepdims=True), 3, axis=-1).astype(np.uint8) * 255
    write_image(tmp_path / "mask.png", white)
    write_image(tmp_path / "picture.png", white)
    frame = read_picture(MediaFile(path=tmp_path / "picture.png"), SIZE).mean(-1)
    mask = read_mask(str(tmp_path / "mask.png"), (1, *SIZE))
    assert (mask == (frame >= 128)).mean() > 0.99


def test_a_folder_has_a_mask_for_each_frame_in_the_order_of_numbers(tmp_path):
    for number in (2, 10, 1):
        white = np.zeros((*SIZE, 3), dtype=np.uint8)
        white[number] = 255
        write_image(tmp_path / f"frame-{number}.png", white)
    (tmp_path / "notes.txt").touch()
    masks = read_mask(str(tmp_path), (3, *SIZE))
    assert masks.any(2).argmax(1).tolist() == [1, 2, 10]
    with pytest.raises(InputError, match="holds 3 pictures for 4 frames"):
        read_mask(str(tmp_path), (4, *SIZE))


def test_transparent_parts_of_a_mask_stay(tmp_path):
    bgra = np.zeros((*SIZE, 4), dtype=np.uint8)
    bgra[:32] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), bgra)
    mask = read_mask(str(tmp_path / "mask.png"), (1, *SIZE))
    assert mask[:32].all()
    assert not mask[32:].any()


# -------------------------------------------------------------------------------------------------- actions


def test_actions_are_read_by_the_names_of_columns(tmp_path):
    path = tmp_path / "drive.csv"
    path.write_text("\ufeffspeed_mps,note,steering_rad\n8,straight,0\n7.5,left,0.1\n", encoding="utf-8")
    assert read_actions(path).tolist() == [[0.0, 8.0], [0.1, 7.5]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"steering,speed\n0,8\n", "lack the column steering_rad"),
        (b"", "lack the column steering_rad"),
        (b"steering_rad,speed_mps\n", "hold no row"),
        (b"steering_rad,speed_mps\n0,8\n0,fast\n", r"row 1 of actions .* write two numbers"),
        (b"steering_rad,speed_mps\n0\n", "row 0 of actions"),
        (b"steering_rad,speed_mps\nnan,8\n", "action 0 is"),
        (b"\xff\xfe\x00s", "save it as CSV"),
        (None, "check the path"),
    ],
)
def test_bad_action_files_are_named(tmp_path, content, expected):
    path = tmp_path / "drive.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=expected):
        read_actions(path)


# -------------------------------------------------------------------------------------------------- outputs


def test_samples_are_numbered_and_recorded(tmp_path):
    result = generated(samples=2)
    files = write_generated(result, tmp_path / "new" / "clip.mp4", {"task": "text"})
    assert [path.name for path in files] == ["clip-1.mp4", "clip-2.mp4", "clip.mp4.json"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in files}
    video = read_video(files[1])
    assert len(video.frames) == 3
    assert video.rate_hz == 8.0


def test_one_frame_is_a_picture_and_more_are_a_sheet(tmp_path):
    result = generated(frames=1)
    write_generated(result, tmp_path / "a.png", {})
    assert np.array_equal(read_image(tmp_path / "a.png"), result.frames[0, 0])
    sheet = sheet_of(generated(samples=2, frames=40).frames)
    assert sheet.shape == (2 * 64 + 2, 16 * 98 - 2, 3)
    assert np.array_equal(sheet[:64, -96:], generated(samples=2, frames=40).frames[0, -1])


def test_a_failure_leaves_nothing_not_even_the_samples_before(tmp_path, monkeypatch):
    written = []

    def full(path, *_):
        path.write_bytes(b"half")
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("drivesim.cli_generate.files.write_video", full)
    with pytest.raises(OSError, match=r"No space left .*clip\.mp4"):
        write_generated(generated(samples=3), tmp_path / "clip.mp4", {})
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written_are_refused_and_nothing_is_made(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for name, expected in {
        "a.avi": r"ends in \.mp4, \.gif, \.png",
        "a": "ends in",
        "folder.mp4": "it is a folder",
        "file/a.mp4": "is no folder",
        "file/deeper/a.mp4": "is no folder",
        f"{'x' * 220}.mp4": "shorten it",
        "\udcff.mp4": "is no text",
    }.items():
        with pytest.raises(InputError, match=expected):
            check_out(tmp_path / name)
    check_out(tmp_path / "new" / "deeper" / "A.MP4")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="cannot be written to"):
        check_out(tmp_path / "a.mp4")


def test_fingerprints_tell_contents_apart(tmp_path):
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert a == c != b
    assert len({a, b, fingerprint(tmp_path)}) == 3
