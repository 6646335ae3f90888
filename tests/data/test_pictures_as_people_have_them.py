"""Pictures, folders and archives as people have them: each kind once, small, and with known pixels."""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from psld.cli import main
from psld.data import ArrayFile, Framing, ImageData, ImageFolder, ImageWarning, ShuffledBatches, loader
from psld.data.decoding import decode, read_header
from psld.data.folders import image_files, natural_order
from psld.data.opening import MixedImagesError, open_images
from psld.evaluation.features.extractors import FeatureExtractor
from psld.evaluation.features.flattened import Flattened, flattened
from psld.inverse.masks import load_mask
from psld.plots.pictures import load_images, save_beside, save_grid, save_images
from psld.specs import build as built
from small_data import encoded, random_bytes, save, scaled

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
WIDE = random_bytes(4, 6, 3)  # height 4, width 6: turning exchanges them


def levels(data: ImageData, index: int = 0) -> np.ndarray:
    """(H, W, C), 0 … 255."""
    return ((data[index] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def read(file: Path, channels: int = 3, background: str = "white") -> np.ndarray:
    header = read_header(file, str(file))
    framing = Framing(header.own_size(str(file)))
    return decode(file, str(file), channels, framing, background).permute(1, 2, 0).numpy()


# -- EXIF --------------------------------------------------------------------------------------------------------------

SEEN = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}
"""What is seen of stored pixels, by EXIF orientation: 6 is a camera held upright, its pictures turned clockwise."""


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})])
def test_pictures_are_seen_upright(tmp_path, orientation, suffix, options):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(WIDE).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    want = SEEN[orientation](WIDE)
    header = read_header(tmp_path / f"a.{suffix}", "a")
    assert (header.height, header.width) == want.shape[:2]
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}"), want)


def test_a_photograph_held_upright(tmp_path):
    """Stored with the red half on the left and turned clockwise (6), it is red above: pixel (0, 0) is red still."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :16], stored[:, 16:] = RED, BLUE
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(stored).save(tmp_path / "photo.JFIF", format="JPEG", exif=exif, quality=95)
    with pytest.warns(ImageWarning, match=r"1 of 1 images: turned or mirrored as their EXIF orientation says"):
        data = ImageFolder(tmp_path, (32, 16))
    assert data.image_shape == (3, 32, 16)
    seen = levels(data).astype(int)
    assert np.abs(seen[:14] - RED).max() < 12 and np.abs(seen[18:] - BLUE).max() < 12


def test_orientation_behind_the_pixels_of_a_png(tmp_path):
    """The eXIf chunk may come last."""
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(WIDE).save(tmp_path / "a.png", exif=exif)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4], "big")
    chunk, rest = content[start : start + length], content[:start] + content[start + length :]
    (tmp_path / "a.png").write_bytes(rest[:-12] + chunk + rest[-12:])
    np.testing.assert_array_equal(read(tmp_path / "a.png"), WIDE[::-1, ::-1])


# -- transparency ------------------------------------------------------------------------------------------------------


def over(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    alpha = pixels[..., 3:].astype(float) / 255
    return alpha * pixels[..., :3] + (1 - alpha) * np.array(colour)


@pytest.mark.parametrize(("background", "colour"), [("white", WHITE), ("#0000ff", BLUE)])
def test_transparency_is_flattened_onto_a_named_background(tmp_path, background, colour):
    pixels = random_bytes(5, 5, 4)
    pixels[0, 0] = (10, 20, 30, 0)
    save(tmp_path / "a.png", pixels)
    save(tmp_path / "b.png", pixels)
    with pytest.warns(ImageWarning) as said:
        data = ImageFolder(tmp_path, 5, background=background)
    assert len(said) == 1 and f"2 of 2 images: transparency is flattened onto background='{background}'" in str(
        said[0].message
    )
    assert levels(data)[0, 0].tolist() == list(colour)
    np.testing.assert_allclose(levels(data), over(pixels, colour), atol=1.01)
    assert ImageFolder(tmp_path, 5, background=background).spec.arguments["background"] == background
    with pytest.raises(ValueError, match="background must be a colour"):
        ImageFolder(tmp_path, 5, background="chequered")


def test_transparency_is_kept_with_four_channels(tmp_path):
    pixels = random_bytes(5, 5, 4)
    save(tmp_path / "a.png", pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = ImageFolder(tmp_path, 5, channels=4)
        opened = open_images(tmp_path)
    np.testing.assert_array_equal(levels(data), pixels)
    np.testing.assert_array_equal(levels(opened), pixels)


def test_every_kind_of_transparency_is_seen(tmp_path):
    grey_alpha = random_bytes(3, 3, 2)
    grey_alpha[0, 0] = (0, 0)
    Image.fromarray(grey_alpha).save(tmp_path / "la.png")
    keyed = Image.fromarray(np.full((3, 3, 3), 7, np.uint8))
    keyed.putpixel((1, 1), RED)
    keyed.save(tmp_path / "rgb.png", transparency=(7, 7, 7))
    palette = Image.new("P", (3, 3), 1)
    palette.putpalette([*BLUE, *RED])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "p.gif", transparency=0)
    bits = Image.new("L", (3, 3), 9)
    bits.save(tmp_path / "l.png", transparency=9)
    assert read(tmp_path / "la.png", 1)[0, 0].tolist() == [255]
    alpha = grey_alpha[..., 1:].astype(float) / 255
    wanted = alpha * grey_alpha[..., :1] + (1 - alpha) * 255
    np.testing.assert_allclose(read(tmp_path / "la.png", 1), wanted, atol=1.01)
    seen = read(tmp_path / "rgb.png")
    assert seen[0, 0].tolist() == list(WHITE) and seen[1, 1].tolist() == list(RED)
    seen = read(tmp_path / "p.gif")
    assert seen[0, 0].tolist() == list(WHITE) and seen[1, 1].tolist() == list(RED)
    assert read(tmp_path / "l.png", 1).tolist() == np.full((3, 3, 1), 255).tolist()


# -- depth -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_are_divided_by_257(tmp_path, suffix):
    deep = np.random.default_rng(0).integers(0, 65536, (4, 4)).astype(np.uint16)
    deep[0] = (0, 128, 129, 65535)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    with pytest.warns(ImageWarning, match="16 bits a channel are divided by 257"):
        data = ImageFolder(tmp_path, 4, channels=1)
    want = np.rint(deep.astype(float) / 257)
    np.testing.assert_array_equal(levels(data)[..., 0], want)
    assert want[0].tolist() == [0, 0, 1, 255]
    np.testing.assert_array_equal(read(tmp_path / f"a.{suffix}", 3), np.repeat(want[..., None], 3, 2))


def test_sixteen_bits_of_grey_of_the_other_byte_order(tmp_path):
    deep = np.arange(0, 65536, 4097, dtype=np.uint16).reshape(4, 4)
    picture = Image.frombytes("I;16B", (4, 4), deep.astype(">u2").tobytes())
    picture.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", 1)[..., 0], np.rint(deep / 257))


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    """A PNG put together by hand: Pillow writes no 16-bit colours."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "samples"), [(2, 3), (4, 2), (6, 4)], ids=["rgb", "grey-alpha", "rgba"])
def test_sixteen_bits_of_colour_are_refused_and_not_cut(tmp_path, kind, samples):
    row = b"\x00" + b"\x12\xff" * samples * 2
    (tmp_path / "deep.png").write_bytes(png(2, 2, 16, kind, row * 2))
    with pytest.raises(ValueError, match=r"deep\.png has 16 bits a channel .*convert it to 8 bits"):
        ImageFolder(tmp_path, 2)


def tiff(bits: tuple[int, ...], photometric: int, content: bytes, sample_format: int = 1) -> bytes:
    """An uncompressed little-endian TIFF of 2×2 pixels, put together by hand."""
    import struct

    tags = [(256, 4, (2,)), (257, 4, (2,)), (258, 3, bits), (259, 3, (1,)), (262, 3, (photometric,))]
    tags += [(273, 4, (-1,)), (277, 3, (len(bits),)), (278, 4, (2,)), (279, 4, (len(content),))]
    tags += [(339, 3, (sample_format,) * len(bits))]
    extra_at = 8 + 2 + 12 * len(tags) + 4
    extra, entries = b"", b""
    for number, kind, values in tags:
        packed = b"".join(struct.pack("<I" if kind == 4 else "<H", max(value, 0)) for value in values)
        if number == 273:
            packed = struct.pack("<I", extra_at + 64)
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place = struct.pack("<I", extra_at + len(extra))
            extra += packed
        entries += struct.pack("<HHI", number, kind, len(values)) + place
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + extra.ljust(64, b"\0") + content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tiff((16, 16, 16), 2, b"\x12\xff" * 12), "16 bits a channel"),
        (tiff((16,), 0, b"\x12\xff" * 4), "16 bits a channel"),  # white is 0
        (tiff((16,), 1, b"\x12\xff" * 4, sample_format=2), "16 bits a channel"),  # with a sign
        (tiff((32,), 1, b"\x12\xff" * 8, sample_format=3), "32 bits a channel"),
        (tiff((12,), 1, b"\x12\xff" * 3), "12 bits a channel"),
    ],
    ids=["colour", "white-is-0", "signed", "float", "12-bit"],
)
def test_tiff_of_unknown_range_is_refused(tmp_path, content, said):
    (tmp_path / "deep.tif").write_bytes(content)
    with pytest.raises(ValueError, match=rf"deep\.tif has {said}"):
        ImageFolder(tmp_path, 2)


def test_tiff_by_hand_is_one(tmp_path):
    """The files above are refused for their depth, not because they are no TIFF."""
    (tmp_path / "a.tif").write_bytes(tiff((16,), 1, np.array([0, 257, 514, 65535], "<u2").tobytes()))
    assert read(tmp_path / "a.tif", 1).flatten().tolist() == [0, 1, 2, 255]


# -- kinds of files ----------------------------------------------------------------------------------------------------


def test_palette_cmyk_and_frames_are_read_and_said(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([*BLUE, *RED])
    palette.save(tmp_path / "a-palette.png")
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "b-cmyk.tif")
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "c-frames.png", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "d-pages.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "e.webp", lossless=True)
    frames[0].save(tmp_path / "f.ppm")
    Image.new("1", (4, 4), 1).save(tmp_path / "g.pbm")
    with pytest.warns(ImageWarning) as said:
        data = ImageFolder(tmp_path, 4)
    for index in range(6):
        assert (levels(data, index) == RED).all(), data.files[index]
    assert (levels(data, 6) == 255).all()
    texts = [str(warning.message) for warning in said]
    assert len(texts) == 3
    assert any("1 of 7 images: colours are looked up in a palette; the first is" in text for text in texts)
    assert any("CMYK is converted to RGB" in text and "b-cmyk.tif" in text for text in texts)
    assert any("2 of 7 images: of several frames or pages the first is used" in text for text in texts)


def test_colours_become_grey_only_where_it_is_said(tmp_path):
    Image.new("RGB", (4, 4), RED).save(tmp_path / "a.png")
    with pytest.warns(ImageWarning, match=r"colours are converted to grey"):
        data = ImageFolder(tmp_path, 4, channels=1)
    assert levels(data)[0, 0, 0] == round(0.299 * 255)  # ITU-R 601


def test_pictures_that_are_not_read_are_not_passed_over_in_silence(tmp_path):
    (tmp_path / "photo.HEIC").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"there are 1 files \(photo\.HEIC first\) of kinds that are not read"):
        ImageFolder(tmp_path, 4)
    save(tmp_path / "a.png", random_bytes(4, 4, 3))
    with pytest.warns(ImageWarning, match=r"1 files \(photo\.HEIC first\).* passed over"):
        assert len(ImageFolder(tmp_path, 4)) == 1
    with pytest.raises(ValueError, match=r"photo\.HEIC is of a kind that is not read: convert it to PNG"):
        open_images(tmp_path / "photo.HEIC")


def huge() -> bytes:
    return png(30_000, 30_000, 8, 0, b"")


def test_too_large_a_picture_is_refused_by_name(tmp_path):
    (tmp_path / "huge.png").write_bytes(huge())
    for open_it in (lambda: ImageFolder(tmp_path, 4, resize=True), lambda: open_images(tmp_path)):
        with pytest.raises(ValueError, match=r"huge\.png has more than 178,956,970 pixels, which is too large"):
            open_it()
    with pytest.raises(ValueError, match=r"huge\.png has more than"):
        load_mask(tmp_path / "huge.png", (1, 4, 4))


def pictures() -> dict[str, bytes]:
    grey16 = np.arange(256, dtype=np.uint16).reshape(16, 16)
    pixels, made = random_bytes(16, 16, 3), {}
    for suffix in ("png", "jpeg", "gif", "tiff", "webp", "bmp", "ppm"):
        made[suffix] = encoded(pixels, suffix)
    return made | {"16": encoded(grey16, "png"), "alpha": encoded(random_bytes(16, 16, 4), "png")}


@pytest.mark.parametrize("kind", pictures())
def test_broken_pictures_are_refused_by_name_or_read(tmp_path, kind):
    """Truncated at nine places and with 40 flipped bits: an image, or one sentence that names the file."""
    content, file, refused = pictures()[kind], tmp_path / "broken.png", 0
    generator = np.random.default_rng(0)
    broken = [content[: len(content) * tenth // 10] for tenth in range(9)]
    for place in generator.integers(0, min(len(content), 400), 40):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(generator.integers(8))
        broken.append(bytes(flipped))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in broken:
            file.write_bytes(content)
            try:
                assert read(file).shape[2] == 3
                assert open_images(file)[0].ndim == 3
            except ValueError as error:
                refused += 1
                assert str(file) in str(error) and "\n" not in str(error)
    assert refused >= 5


def test_a_picture_of_a_foreign_kind_is_not_handed_to_other_programs(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
    for open_it in (lambda: open_images(tmp_path), lambda: load_mask(tmp_path / "a.png", (1, 4, 4))):
        with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
            open_it()


# -- folders -----------------------------------------------------------------------------------------------------------


def test_natural_order():
    names = ["10", "9", "img12b", "img2", "b", "a", "1", "img12a", "09"]
    assert sorted(names, key=natural_order) == ["1", "09", "9", "10", "a", "b", "img2", "img12a", "img12b"]


def tree(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name, format="PNG")
    return root


NOT_CLASSES = (".hidden/a.png", ".ipynb_checkpoints/a.png", "__MACOSX/10/._a.png", "9/._a.png", "10/.DS_a.png")


def test_what_is_hidden_is_no_class(tmp_path):
    tree(tmp_path, "9/a.png", "10/a.png", "9/b.png", *NOT_CLASSES)
    for data in (ImageFolder(tmp_path, 4), open_images(tmp_path)):
        assert data.classes == ("9", "10") and data.labels is not None
        assert dict(zip([levels(data, i)[0, 0, 0] for i in range(3)], data.labels.tolist(), strict=True)) == {
            0: 0,
            1: 1,
            2: 0,
        }


def test_links_to_folders_are_followed_once(tmp_path):
    root = tree(tmp_path / "set", "cat/a.png", "cat/deep/b.png")
    tree(tmp_path / "elsewhere", "c.png", "d.png")
    os.symlink(tmp_path / "elsewhere", root / "dog")
    os.symlink(root, root / "cat" / "deep" / "round")  # a circle
    os.symlink(tmp_path, root / "up")  # all above
    os.symlink(root / "cat", root / "again")  # there already
    os.symlink(root / "gone", root / "nothing")
    found = [file.relative_to(root).as_posix() for file in image_files(root)]
    assert found == ["cat/a.png", "cat/deep/b.png", "dog/c.png", "dog/d.png"]
    data = ImageFolder(root, 4)
    assert data.classes == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [0, 0, 1, 1]
    os.symlink(root, tmp_path / "link")
    assert len(ImageFolder(tmp_path / "link", 4)) == 4


def test_the_configuration_has_the_map_of_classes(tmp_path):
    """So a class that is added later, or a part of the data without one, keeps the labels of the others."""
    data = ImageFolder(tree(tmp_path, "cat/a.png", "dog/b.png"), 4)
    config = data.spec.config()
    assert config["init_args"]["classes"] == ["cat", "dog"]
    tree(tmp_path, "bird/x.png")
    with pytest.raises(ValueError, match=r"'bird' not among classes 'cat', 'dog': add to classes"):
        built(config)
    config["init_args"]["classes"].append("bird")
    again = built(config)
    assert [Path(str(file)).parent.name for file in again.files] == ["bird", "cat", "dog"]
    assert again.labels.tolist() == [2, 0, 1]
    (tmp_path / "cat" / "a.png").unlink()
    assert built(config).labels.tolist() == [2, 1]
    assert ImageFolder(tree(tmp_path / "flat", "a.png"), 4).spec.config()["init_args"]["classes"] is None


def test_images_beside_folders_take_the_classes_away_and_it_is_said(tmp_path):
    tree(tmp_path, "cat/a.png", "dog/b.png", "cover.png")
    with pytest.warns(
        ImageWarning, match=r"no classes in .*: 1 of 3 images lie beside its folders \(cover\.png first\)"
    ):
        assert ImageFolder(tmp_path, 4).labels is None
    with pytest.raises(ValueError, match=r"lie in no folder of a class \(cover\.png\)"):
        ImageFolder(tmp_path, 4, classes=["cat", "dog"])


# -- archives ----------------------------------------------------------------------------------------------------------


def zipped(file: Path, contents: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file


@pytest.mark.parametrize("around", ["", "photos/"])
def test_zip_with_a_folder_a_class(tmp_path, around):
    pixels = random_bytes(3, 4, 4, 3)
    names = ["9/b.png", "10/a.png", "9/a.jpg"]
    contents = {around + name: encoded(pixels[i]) for i, name in enumerate(names)}
    hidden = {around + name: b"not an image" for name in NOT_CLASSES} | {"__MACOSX/photos/9/._b.png": b"x"}
    file = zipped(tmp_path / "set.zip", {**contents, **hidden, around + "README.txt": b"x"})
    for data in (ImageFolder(file, 4), open_images(file), built(ImageFolder(file, 4).spec.config())):
        assert data.classes == ("9", "10") and data.labels is not None and data.labels.tolist() == [1, 0, 0]
        np.testing.assert_array_equal(levels(data, 0), pixels[1])
        np.testing.assert_array_equal(levels(data, 2), pixels[0])
    data = ImageFolder(file, 4)
    assert pickle.loads(pickle.dumps(data)).fingerprint() == data.fingerprint()
    batches = ShuffledBatches(3, 3, 0, 0, 8)
    for workers in (0, 2):  # processes that share the archive
        for indices, images in zip(batches, loader(data, batches, num_workers=workers), strict=True):
            assert torch.equal(images, data.batch(indices))


@pytest.mark.parametrize("kind", ["zip", "folder"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_dataset_json_of_edm_and_stylegan(tmp_path, kind, one_hot):
    pixels = random_bytes(3, 4, 4, 3)
    names = [f"0000{i}/img0000000{i}.png" for i in range(3)]
    labels = [[name, [0, float(i == 0), float(i > 0)] if one_hot else 1 + (i > 0)] for i, name in enumerate(names)]
    contents = {name: encoded(pixels[i]) for i, name in enumerate(names)}
    listing = json.dumps({"labels": labels})
    if kind == "zip":
        root = zipped(tmp_path / "set.zip", {**contents, "dataset.json": listing})
    else:
        root = tmp_path / "set"
        for name, content in contents.items():
            (root / name).parent.mkdir(parents=True)
            (root / name).write_bytes(content)
        (root / "dataset.json").write_text(listing)
    data = ImageFolder(root, 4)
    assert data.labels is not None and data.labels.tolist() == [1, 2, 2] and data.classes == ()
    np.testing.assert_array_equal(levels(data, 2), pixels[2])
    assert ImageFolder(root, 4, classes=["x", "y", "z"]).classes == ("x", "y", "z")
    with pytest.raises(ValueError, match="there is a label 2, and 2 classes"):
        ImageFolder(root, 4, classes=["x", "y"])


def test_dataset_json_without_labels_and_with_wrong_ones(tmp_path):
    content = {f"0000{i}/a.png": encoded(random_bytes(4, 4, 3)) for i in range(2)}

    def with_listing(listing: str) -> ImageFolder:
        return ImageFolder(zipped(tmp_path / "set.zip", {**content, "dataset.json": listing}), 4)

    assert with_listing('{"labels": null}').labels is None  # and its folders are no classes
    for listing, said in {
        '{"labels": [["00000/a.png", 1]]}': r"no label to 1 of 2 images, 00001/a\.png first",
        '{"labels": [["00000/a.png", 1.5], ["00001/a.png", 1]]}': r"00000/a\.png has label 1\.5",
        '{"labels": [["00000/a.png", [1, 1]], ["00001/a.png", 1]]}': "lists with a single 1",
        '{"labels": {"00000/a.png": 1}}': r"null or a list of \[file, label\]",
        '{"labels": [': "is not JSON, or truncated",
        "[1]": "holds a list where",
    }.items():
        with pytest.raises(ValueError, match=said):
            with_listing(listing)


def test_broken_archives_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.zip"):
        open_images(tmp_path / "gone.zip")
    (tmp_path / "no.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"no\.zip cannot be read as a zip archive"):
        open_images(tmp_path / "no.zip")
    with pytest.raises(FileNotFoundError, match=r"no images in .*empty\.zip"):
        open_images(zipped(tmp_path / "empty.zip", {"a.txt": "x"}))
    file = zipped(tmp_path / "set.zip", {"a.png": encoded(random_bytes(16, 16, 3))})
    data, content = ImageFolder(file, 16), bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 100] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"set\.zip:a\.png cannot be read as an image: Bad CRC"):
        ImageFolder(file, 16)[0]
    assert len(data) == 1


# -- .npz --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    return tmp_path / "images.npz"


def test_layout_is_detected_and_a_guess_is_said(file):
    pixels = random_bytes(5, 5, 6, 3)
    want = scaled(pixels.transpose(0, 3, 1, 2))
    layouts: list[tuple[Literal["NHWC", "NCHW"], np.ndarray]] = [
        ("NHWC", pixels),
        ("NCHW", pixels.transpose(0, 3, 1, 2)),
    ]
    for layout, stored in layouts:
        np.savez(file, stored)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for data in (ArrayFile(file), ArrayFile(file, layout=layout), open_images(file)):
                np.testing.assert_array_equal(data.batch(range(5)).numpy(), want)
    pixels = random_bytes(2, 3, 8, 3)
    np.savez(file, pixels)
    with pytest.warns(ImageWarning, match=r"\(2, 3, 8, 3\) could be NHWC or NCHW, and are read as NHWC"):
        np.testing.assert_array_equal(levels(open_images(file), 1), pixels[1])
    np.testing.assert_array_equal(ArrayFile(file, layout="NCHW")[1].numpy(), scaled(pixels[1]))
    np.savez(file, random_bytes(2, 5, 8, 7))
    with pytest.raises(ValueError, match=r"\(2, 5, 8, 7\): 1, 3 or 4 channels are needed, at the second place"):
        ArrayFile(file)


def test_the_key_is_found_where_one_array_can_be_meant(file):
    pixels = random_bytes(3, 4, 4, 3)
    np.savez(file, ids=np.arange(3), photos=pixels, style=np.zeros(3, np.uint8))
    np.testing.assert_array_equal(levels(open_images(file), 2), pixels[2])
    np.savez(file, images=pixels, others=pixels[::-1])
    np.testing.assert_array_equal(levels(ArrayFile(file), 0), pixels[0])
    np.savez(file, train=pixels, test=pixels[::-1])
    with pytest.raises(ValueError, match="holds train, test: key must name the array of images, .* class ArrayFile"):
        open_images(file)


@pytest.mark.parametrize("key", ["labels", "label", "y"])
def test_labels_in_a_column_and_as_names(file, key):
    pixels = random_bytes(4, 4, 4, 3)
    np.savez(file, **{"images": pixels, key: np.array([[2], [0], [1], [0]])})  # pyright: ignore[reportArgumentType]
    labels = open_images(file, labelled=True).labels
    assert labels is not None and labels.tolist() == [2, 0, 1, 0]
    for names in (np.array(["9", "10", "9", "1"]), np.array([[b"9"], [b"10"], [b"9"], [b"1"]])):
        np.savez(file, **{"images": pixels, key: names})  # pyright: ignore[reportArgumentType]
        data = ArrayFile(file, label_key=key)
        assert data.classes == ("1", "9", "10") and data.labels is not None and data.labels.tolist() == [1, 2, 1, 0]
        config = data.spec.config()
        assert config["init_args"]["classes"] == ["1", "9", "10"] and built(config) == data
    with pytest.raises(ValueError, match="labels of .*: '9' not among classes '1', '10'"):
        ArrayFile(file, label_key=key, classes=["1", "10"])


# -- commands ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_many_modes_is_of_one_kind_and_many_sizes_are_not(tmp_path):
    Image.new("L", (6, 4), 200).save(tmp_path / "a.png")
    Image.new("RGB", (6, 4), RED).save(tmp_path / "b.png")
    data = open_images(tmp_path)
    assert data.image_shape == (3, 4, 6)
    assert levels(data, 0)[0, 0].tolist() == [200] * 3 and levels(data, 1)[0, 0].tolist() == list(RED)
    Image.new("RGB", (8, 4), RED).save(tmp_path / "c.png")
    with pytest.raises(MixedImagesError, match=r"a\.png is 6×4, .*c\.png is 8×4\. .*ImageFolder with .*resize=true"):
        open_images(tmp_path)
    resized = ImageFolder(tree(tmp_path / "other", "a.png"), (2, 4), resize=True)  # the middle two rows of four
    assert resized.image_shape == (3, 2, 4)


def test_the_largest_box_of_the_proportions_is_taken(tmp_path):
    pixels = random_bytes(6, 20, 3)
    save(tmp_path / "a.png", pixels)
    wide, tall = ImageFolder(tmp_path, (6, 12), resize=True), ImageFolder(tmp_path, (6, 3), resize=True)
    np.testing.assert_array_equal(levels(wide), pixels[:, 4:16])
    np.testing.assert_array_equal(levels(tall), pixels[:, 8:11])
    with pytest.raises(ValueError, match=r"a\.png gives 20×5 pixels, fewer than image_size=\[8, 32\]"):
        ImageFolder(tmp_path, (8, 32), resize=True)
    with pytest.raises(ValueError, match=r"a\.png is 20×6, image_size=\[20, 6\] needs 6×20"):
        ImageFolder(tmp_path, (20, 6))


def test_masks_are_pictures_like_others(tmp_path):
    known = np.zeros((4, 6), np.uint8)
    known[:, :2] = 255
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(known).save(tmp_path / "mask.png", exif=exif)
    mask = load_mask(tmp_path / "mask.png", (3, 4, 6))
    assert mask[0, 0].tolist() == [False] * 4 + [True] * 2
    with pytest.raises(ValueError, match="is 4×6 pixels and the images are 6×4"):
        load_mask(tmp_path / "mask.png", (3, 6, 4))


def test_commands_say_what_they_do_in_one_line(tmp_path, capsys):
    """Transparent digits on white, measured by psld stats, which has no channels to go by but those of the images."""
    for i in range(4):
        grey = Image.fromarray(np.stack([random_bytes(8, 8, seed=i), np.full((8, 8), 255, np.uint8)], 2))
        grey.save(tmp_path / f"{i}.png")
    assert main(["stats", str(tmp_path), "--out", str(tmp_path / "s.npz"), "--extractor", "digits"]) == 0
    said = capsys.readouterr().err
    assert "psld stats: 4 of 4 images: transparency is flattened onto background='white' (channels=4 keeps it)" in said
    assert "Warning" not in said and ".py" not in said


# -- transparency all the way ------------------------------------------------------------------------------------------


def test_transparency_goes_out_as_it_came_in(tmp_path):
    """Pixels of four channels as samples: to PNG files and back, in a grid on an opaque ground, and as features."""
    pixels = random_bytes(4, 4, 4, 4)
    images = torch.from_numpy(scaled(pixels.transpose(0, 3, 1, 2)))
    files = save_images(images, tmp_path / "images")
    assert Image.open(files[0]).mode == "RGBA"
    np.testing.assert_array_equal(levels(open_images(tmp_path / "images"), 3), pixels[3])
    assert torch.equal(load_images(files), images)
    save_grid(images, tmp_path / "grid.png", columns=2, scale=1, gap=1)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (11, 11, 4) and grid[0, 0].tolist() == [72, 72, 72, 255]
    np.testing.assert_array_equal(grid[1:5, 6:10], pixels[1])
    save_beside(images, images, tmp_path / "beside.png")
    assert (tmp_path / "beside.png").is_file()
    wanted = np.stack([over(image, WHITE) for image in pixels])
    seen = ((flattened(images) + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(seen, wanted, atol=1e-3)


class Mean(FeatureExtractor):
    """The mean of each channel, of 0 … 255."""

    identity, convention = "mean", "as they are"

    def require_shape(self, shape: tuple[int, ...]) -> None:
        assert shape[0] == 3

    def of_bytes(self, pixels: torch.Tensor) -> tuple[torch.Tensor, None]:
        return pixels.float().mean((2, 3)), None


def test_features_of_transparent_images_are_those_of_what_is_seen_on_white():
    pixels = random_bytes(4, 4, 4, 4)
    images = torch.from_numpy(scaled(pixels.transpose(0, 3, 1, 2)))
    extractor = Flattened(Mean())
    features, _ = extractor(images)
    wanted = np.stack([np.rint(over(image, WHITE)).mean((0, 1)) for image in pixels])
    np.testing.assert_allclose(features.numpy(), wanted, atol=0.1)
    assert "transparency flattened onto white" in extractor.convention
    with pytest.raises(ValueError, match="four channels are needed"):
        extractor.require_shape((3, 4, 4))
