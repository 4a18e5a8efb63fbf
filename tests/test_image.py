import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ruac.data.image import FORMATS, ImageError, read_image


@pytest.fixture
def colours() -> np.ndarray:
    """A picture [6, 10, 3] that no flip or rotation leaves as it is."""
    return np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def save(folder: Path, image: Image.Image | np.ndarray, name: str = "picture.png", **options: object) -> Path:
    path = folder / name
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.ppm", "a.webp"])
def test_lossless_formats_are_read_exactly(tmp_path: Path, colours: np.ndarray, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    image = read_image(save(tmp_path, colours, name, **options))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    np.testing.assert_array_equal(image, colours)


def test_jpeg_is_read_closely(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    image = read_image(save(tmp_path, ramp, "a.jpg", quality=95))
    assert np.abs(image.astype(int) - ramp).max() <= 4


def test_format_is_known_by_content_not_by_name(tmp_path: Path, colours: np.ndarray) -> None:
    path = save(tmp_path, colours, "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(path), colours)


def test_tall_images_are_joined_from_their_strips(tmp_path: Path) -> None:
    tall = np.random.default_rng(1).integers(0, 256, (600, 3, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path, tall)), tall)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        image = read_image(tmp_path / name)
        assert image.shape == (4, 5, 3)
        assert (image == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_exif_orientation_is_applied(tmp_path: Path, colours: np.ndarray, orientation: int, turn) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_image(save(tmp_path, colours, exif=exif)), turn(colours))


def test_grey_becomes_three_equal_channels(tmp_path: Path, colours: np.ndarray) -> None:
    grey = colours[..., 0]
    image = read_image(save(tmp_path, grey))
    assert (image == grey[..., None]).all()


def test_one_bit_becomes_black_and_white(tmp_path: Path, colours: np.ndarray) -> None:
    bits = colours[..., 0] > 127
    image = read_image(save(tmp_path, Image.fromarray(bits)))
    assert (image == np.where(bits, 255, 0)[..., None]).all()


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert (read_image(save(tmp_path, image)) == (10, 200, 30)).all()


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("RGBA", (0, 0, 0, 0), 255), ("RGBA", (0, 0, 0, 255), 0), ("RGBA", (0, 0, 0, 51), 204), ("LA", (0, 51), 204)],
)
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str, colour: tuple[int, ...], expected: int) -> None:
    assert (read_image(save(tmp_path, Image.new(mode, (4, 3), colour))) == expected).all()


def test_transparent_palette_entry_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert (read_image(save(tmp_path, image, transparency=1)) == 255).all()


def test_cmyk_is_converted(tmp_path: Path) -> None:
    image = read_image(save(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "a.tif"))
    assert image[0, 0, 0] > 200
    assert image[0, 0, 1:].max() < 60


def test_sixteen_bit_grey_is_divided_by_257(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        assert read_image(save(tmp_path, grey, name))[0, :, 1].tolist() == [0, 1, 128, 255]


def test_integers_within_sixteen_bits_are_divided_by_257_too(tmp_path: Path) -> None:
    assert read_image(save(tmp_path, np.array([[0, 257, 5140]], np.int32), "a.tif"))[0, :, 0].tolist() == [0, 1, 20]


def test_float_is_stretched_over_its_own_range(tmp_path: Path) -> None:
    values = np.array([[-2.0, 0.0, 2.0, np.nan, np.inf]], np.float32)
    assert read_image(save(tmp_path, values, "a.tif"))[0, :, 0].tolist() == [0, 128, 255, 0, 0]


def test_constant_and_nan_only_floats_are_black(tmp_path: Path) -> None:
    for value in (3.0, np.nan):
        assert (read_image(save(tmp_path, np.full((3, 4), value, np.float32), "a.tif")) == 0).all()


def test_size_limit_is_checked_before_decoding(tmp_path: Path, colours: np.ndarray) -> None:
    path = save(tmp_path, colours)
    assert read_image(path, max_pixels=60).shape == (6, 10, 3)
    with pytest.raises(ImageError, match=r"picture\.png: 10 x 6 pixels is over the limit of 5e-05 megapixels"):
        read_image(path, max_pixels=50)


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_huge_header_is_refused_without_its_pixels(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(side, side, zlib.compress(bytes(1000))))
    tracemalloc.start()
    with pytest.raises(ImageError, match=r"bomb\.png: .* over the limit of 100 megapixels; scale the image down"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.filterwarnings("error")
def test_pillows_own_size_warning_stays_silent(tmp_path: Path) -> None:
    """Between Pillow's limit of 89 and ours of 100 megapixels."""
    path = tmp_path / "large.png"
    path.write_bytes(_png(9_900, 10_000, zlib.compress(bytes(1000))))
    with pytest.raises(ImageError, match=r"large\.png: damaged"):
        read_image(path)


def _png(width: int, height: int, pixels: bytes) -> bytes:
    """A grey PNG whose header promises more than it holds."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp", "gif", "ppm"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9])
def test_truncated_files_are_image_errors_that_name_the_file(tmp_path: Path, suffix: str, kept: float) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path, noise, f"cut.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}: (damaged|cannot be read|not an image)") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_every_format_survives_flipped_bytes(tmp_path: Path) -> None:
    """Damage anywhere gives a picture or an ImageError, never another exception."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    refused = 0
    for name in FORMATS:
        path = save(tmp_path, noise, f"flip.{name.lower()}", format=name)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(40):
            broken = whole.copy()
            broken[rng.integers(0, min(200, len(whole)), 6)] = rng.integers(0, 256, 6)
            path.write_bytes(broken.tobytes())
            try:
                assert read_image(path).ndim == 3
            except ImageError:
                refused += 1
    assert refused > 40


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.jpg: no such file"):
        read_image(tmp_path / "nowhere.jpg")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a folder, not an image"):
        read_image(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match=r"empty\.png: an empty file"):
        read_image(tmp_path / "empty.png")


@pytest.mark.parametrize("content", [b"hello, I am text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"])
def test_text_and_postscript_are_no_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "note.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"note\.jpg: not an image \(JPEG, PNG"):
        read_image(tmp_path / "note.jpg")


def test_a_jpeg_of_hundreds_of_scans_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    file = tmp_path / "scans.jpg"
    Image.new("RGB", (150, 100)).save(file, progressive=True)
    data = file.read_bytes()
    last = data.rindex(b"\xff\xda")
    file.write_bytes(data[:last] + data[last:-2] * 600 + data[-2:])
    with pytest.raises(ImageError, match=r"scans\.jpg: a JPEG of more than 100 scans"):
        read_image(file)


def test_what_a_phone_puts_behind_a_jpeg_or_a_camera_into_it_is_no_scan(tmp_path: Path) -> None:
    file = tmp_path / "motion.jpg"
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 200  # as a preview in the file's head would have
    Image.new("RGB", (150, 100), "red").save(file, exif=exif)
    film = b"\xff\xda" * 200
    file.write_bytes(file.read_bytes() + film)
    assert read_image(file).shape == (100, 150, 3)


def test_a_small_tiff_of_huge_tiles_is_refused_before_one_is_decoded(tmp_path: Path) -> None:
    file, side, start = tmp_path / "tiles.tif", 20_000, 8 + 2 + 10 * 12 + 4
    content = zlib.compress(bytes(side * 100))
    # width, height, bits, deflate, black is zero, samples, width and height of tiles, where the only one lies and how long it is
    values = {256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: start, 325: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    file.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + content)
    with pytest.raises(ImageError, match=r"tiles\.tif: a TIFF with tiles of more than 100 megapixels"):
        read_image(file)


def test_image_error_is_a_value_error() -> None:
    assert issubclass(ImageError, ValueError)
