"""Volumes: NIfTI, DICOM, TIFF stacks and numpy in and out, and where their voxels lie in space."""

import gzip
import io
import json
import struct
import sys
import zipfile

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless

import fields
import inr
from apps.cli.main import main
from inr import presets
from inr.errors import CorruptFile, InputError, LimitExceeded, UsageError
from inr.fitting.fit import build_field
from inr.limits import Limits
from inr.signals import KINDS, kind_of, volumeout
from inr.signals.volume import Volume, VolumeDomain, Window, open_volume, render_volume
from inr.signals.volumeout import picture_of, write_volume

OBLIQUE = np.array(
    [[0.9, -0.2, 0.1, -31], [0.3, 1.4, 0.0, 12.5], [-0.1, 0.2, 2.5, 7], [0, 0, 0, 1]]
)
"""Handed as scanners are, sheared a little, with steps of three sizes."""


class Ramp(fields.Field):
    """Known everywhere: 0.2 x + 0.3 y + 0.4 z of the world that an affine leads to."""

    widest = 1

    def __init__(self, domain: VolumeDomain) -> None:
        import torch

        super().__init__(3, 1)
        self.domain = domain
        matrix = np.eye(4) if domain.affine is None else domain.affine
        self.slope = torch.tensor(np.array([0.2, 0.3, 0.4]) @ matrix[:3]) / 100
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, coords):
        import torch

        shape = torch.tensor(self.domain.shape, dtype=torch.float64)
        indices = (coords.double() + 1) / 2 * shape - 0.5
        return (indices @ self.slope[:3] + self.slope[3])[..., None].to(coords)


def ramp(shape=(6, 7, 8), affine=OBLIQUE) -> Ramp:
    geometry = () if affine is None else tuple(affine[:3].ravel().tolist())
    space = 0 if affine is None else 1
    return Ramp(VolumeDomain(shape, "f4", -1.0, 1.0, geometry, (), space))


def blob(shape=(9, 10, 11), dtype=np.int16) -> np.ndarray:
    """Numbers without any symmetry, so that no axis can be taken for another."""
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    return (i * 37 % 19 + j * 5 + k * k).astype(dtype)


def nifti(array: np.ndarray, affine=OBLIQUE, suffix=".nii", **header) -> bytes:
    image = nibabel.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    data = image.to_bytes()
    return gzip.compress(data) if suffix == ".nii.gz" else data


def saved(tmp_path, name: str, data: bytes):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def small_fit(array: np.ndarray, tmp_path, **options):
    """A volume fitted by the default field, as a file."""
    fit = inr.fit(Volume.from_array(array, **options), steps=1)
    inr.save(fit, tmp_path / "v.inr")
    return fit, tmp_path / "v.inr"


# --------------------------------------------------------------------------------- NIfTI


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_nifti_is_read_as_it_is_stored(tmp_path, dtype, suffix):
    array = blob(dtype=dtype)
    path = saved(tmp_path, f"x{suffix}", nifti(array, suffix=suffix))
    volume = inr.open(path)
    assert isinstance(volume, Volume)
    assert volume.samples.dtype == dtype
    assert np.array_equal(volume.samples[..., 0], array)
    assert np.allclose(volume.domain.affine, OBLIQUE, atol=1e-5)
    assert kind_of(path.read_bytes()) == "volume"
    assert inr.open(path.read_bytes()).domain == volume.domain


def test_other_types_byte_orders_and_versions(tmp_path):
    array = blob()
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    swapped = nibabel.Nifti1Image(array, OBLIQUE, header)
    second = nibabel.Nifti2Image(array, OBLIQUE)
    doubles = nibabel.Nifti1Image(array / 3, OBLIQUE)
    for image, dtype in ((swapped, np.int16), (second, np.int16), (doubles, np.float32)):
        volume = inr.open(image.to_bytes())
        assert volume.samples.dtype == dtype
        assert volume.samples.dtype.isnative
        assert np.allclose(volume.samples[..., 0], image.get_fdata(), rtol=1e-6)
        assert np.allclose(volume.domain.affine, OBLIQUE, atol=1e-5)


def test_units_short_headers_and_unknown_places():
    array = blob()
    image = nibabel.Nifti1Image(array, OBLIQUE)
    image.header.set_xyzt_units("micron")
    assert np.allclose(inr.open(image.to_bytes()).domain.affine[:3], OBLIQUE[:3] / 1000)
    plain = nibabel.Nifti1Image(array, None)
    plain.header.set_zooms((1.0, 2.0, 3.5))
    domain = inr.open(plain.to_bytes()).domain
    assert (domain.affine, domain.spacing) == (None, (1.0, 2.0, 3.5))
    flat = nibabel.Nifti1Image(array[..., 0], OBLIQUE)
    assert inr.open(flat.to_bytes()).domain.shape == (9, 10, 1)
    long = nibabel.Nifti1Image(array[..., None, None], OBLIQUE)
    assert inr.open(long.to_bytes()).domain.shape == (9, 10, 11)


def test_one_of_several_volumes():
    array = np.stack([blob(), blob() + 100, blob() + 200], axis=-1)
    data = nibabel.Nifti1Image(array, OBLIQUE).to_bytes()
    with pytest.raises(InputError, match=r"holds 3 volumes: choose one with --volume\.index"):
        inr.open(data)
    assert np.array_equal(inr.open(data, index=1).samples[..., 0], blob() + 100)
    with pytest.raises(InputError, match="none of index 3"):
        inr.open(data, index=3)


affines = st.builds(
    lambda numbers, place: np.vstack(
        [np.column_stack([np.reshape(numbers, (3, 3)) + 3 * np.eye(3), place]), [0, 0, 0, 1]]
    ),
    st.lists(st.floats(-1, 1, width=32), min_size=9, max_size=9),
    st.lists(st.floats(-500, 500, width=32), min_size=3, max_size=3),
)


@given(affines, st.integers(1, 4), st.sampled_from([None, (2.0, -1024.0), (0.5, 3.0)]))
@settings(max_examples=40)
def test_place_type_and_scaling_go_round(affine, space, scaling):
    affine[:3] = affine[:3].astype(np.float32)
    domain = VolumeDomain(
        (3, 4, 5), "i2", -9, 90, tuple(affine[:3].ravel().tolist()), scaling or (), space
    )
    field = Ramp(domain)
    file = io.BytesIO()
    write_volume(file, field, suffix=".nii.gz")
    assert VolumeDomain.from_header(domain.header()) == domain
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(file.getvalue()))
    assert np.array_equal(image.affine, affine)
    assert image.header["sform_code"] == space
    stored = render_volume(field)
    slope, intercept = scaling or (1, 0)
    assert np.allclose(image.get_fdata(), stored * slope + intercept)
    again = open_volume(file.getvalue())
    assert again.domain.geometry == domain.geometry
    assert (again.domain.scaling, again.domain.space) == (domain.scaling, space)
    assert np.array_equal(again.samples[..., 0], stored)
    if image.header["qform_code"]:  # a rotation and sizes say the same
        assert np.allclose(image.header.get_qform(), affine, atol=1e-3)


def test_shears_go_into_the_sform_alone():
    file = io.BytesIO()
    write_volume(file, ramp(), suffix=".nii")
    image = nibabel.Nifti1Image.from_bytes(file.getvalue())
    assert (image.header["qform_code"], image.header["sform_code"]) == (0, 1)
    straight = np.diag([2.0, 3, 4, 1])
    file = io.BytesIO()
    write_volume(file, ramp(affine=straight), suffix=".nii")
    image = nibabel.Nifti1Image.from_bytes(file.getvalue())
    assert (image.header["qform_code"], image.header["sform_code"]) == (1, 1)
    assert np.allclose(image.header.get_qform(), straight)


def test_damaged_nifti_is_told_in_one_line(tmp_path):
    whole, packed = nifti(blob()), nifti(blob(), suffix=".nii.gz")
    colours = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    bad = {
        "short.nii": (whole[:900], "is cut short"),
        "head.nii": (whole[:200], "is no volume"),
        "short.nii.gz": (packed[:-40], "is cut short or damaged"),
        "noise.nii.gz": (packed[:60] + bytes(200), "is cut short or damaged"),
        "text.nii.gz": (gzip.compress(b"no volume at all" * 40), "is no volume: give NIfTI"),
        "pair.nii": (whole[:344] + b"ni1\0" + whole[348:], "save it as one .nii"),
        "colours.nii": (nifti(colours), "are not supported"),
        "complex.nii": (nifti(blob().astype(np.complex64)), "are not supported"),
        "type.nii": (whole[:70] + b"\xff\x7f" + whole[72:], "is damaged or no volume"),
        "axes.nii": (whole[:40] + struct.pack("<h", 0) + whole[42:], "the header is damaged"),
        "long.nii": (whole[:42] + struct.pack("<h", -3) + whole[44:], "the header is damaged"),
        "far.nii": (whole[:108] + struct.pack("<f", 1e9) + whole[112:], "the header is damaged"),
        "point.nii": (whole[:280] + bytes(48) + whole[328:], "no size"),
    }  # fmt: skip
    for name, (data, told) in bad.items():
        path = saved(tmp_path, name, data)
        with pytest.raises(InputError) as caught:
            inr.open(path)
        assert str(caught.value).startswith(f"{path}: "), name
        assert told in str(caught.value), name
        assert "\n" not in str(caught.value)


def test_nan_voxels_are_counted_and_refused(tmp_path, capsys):
    array = blob().astype(np.float32)
    array[2, 3, 4] = np.nan
    array[5, 6, :2] = np.inf
    path = saved(tmp_path, "holes.nii.gz", nifti(array, suffix=".nii.gz"))
    assert main(["fit", str(path)]) == 3
    told = capsys.readouterr().err
    assert f"{path}: holds 3 NaN or infinite voxels: replace them first" in told
    assert told.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["holes.nii.gz"]
    with pytest.raises(InputError, match="holds 1,000 NaN"):
        Volume.from_array(np.full((10, 10, 10), 1e300))  # as float32 they are infinite


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz"])
def test_bombs_are_refused_at_once(tmp_path, suffix):
    """A head that claims 10^12 voxels, and behind it zeros without end as gzip has them."""
    if suffix in (".nii", ".nii.gz"):
        data = bytearray(nifti(blob()))
        data[42:48] = struct.pack("<3h", 10_000, 10_000, 10_000)
    else:
        head = io.BytesIO()
        claims = {"descr": "<i2", "fortran_order": False, "shape": (10_000,) * 3}
        np.lib.format.write_array_header_1_0(head, claims)
        data = bytearray(head.getvalue())
    data += bytes(1 << 24)
    path = tmp_path / f"x{suffix}"
    if suffix == ".nii.gz":
        data = gzip.compress(data)
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", bytes(data))
    else:
        path.write_bytes(data)
    with pytest.raises(LimitExceeded, match="10000x10000x10000"):
        open_volume(path)


def test_a_head_of_gigabytes_in_a_zip_is_not_inflated(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31) + bytes(99))
    with pytest.raises(InputError, match="its head is too long"):
        open_volume(path)


def test_real_template(shared):
    path = shared / "volume" / "mni152_t1_1mm.nii.gz"
    volume = inr.open(path)
    image = nibabel.load(path)
    assert volume.domain.shape == (197, 233, 189)
    assert volume.domain.spacing == (1, 1, 1)
    assert (volume.domain.dtype, volume.domain.low, volume.domain.high) == ("u1", 0, 255)
    assert np.array_equal(volume.domain.affine, image.affine)
    assert volume.domain.space == image.header["sform_code"]
    assert np.array_equal(volume.samples[..., 0], image.dataobj)


def test_without_a_reader_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    path = saved(tmp_path, "x.nii", nifti(blob()))
    series(tmp_path / "scan")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for source in (path, tmp_path / "scan"):
        assert main(["fit", str(source)]) == 3
        told = capsys.readouterr().err
        assert "pip install 'inr-studio[volume]'" in told
        assert told.count("\n") == 1
    with pytest.raises(UsageError, match="pip install"):
        write_volume(io.BytesIO(), ramp(), suffix=".nii")


# ------------------------------------------------------------------------------ geometry


def world(domain: VolumeDomain) -> np.ndarray:
    """Where the centres of all voxels lie, by nibabel."""
    indices = np.moveaxis(np.indices(domain.shape), 0, -1)
    return nibabel.affines.apply_affine(domain.affine, indices)


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.floats(0, 2)] * 3),
    st.tuples(*[st.floats(1.0, 4)] * 3),
)
def test_renderings_register_in_the_world(size, starts, lengths):
    """A field that is a function of the place in the world gives it back at any voxel."""
    field = ramp()
    place = field.domain.window(size, crop=(*starts, *lengths))
    domain = field.domain.resampled(place)
    assert domain.shape == size
    samples = render_volume(field, place)
    expected = world(domain) @ [0.2, 0.3, 0.4] / 100
    assert np.abs(samples - expected).max() < 1e-6
    # and its voxels fill the same space
    volume = abs(np.linalg.det(domain.affine[:3, :3])) * np.prod(size)
    assert volume == pytest.approx(abs(np.linalg.det(OBLIQUE[:3, :3])) * np.prod(lengths))


def test_the_middle_of_three_voxels_lies_where_the_one_does():
    domain = ramp().domain
    thrice = domain.resampled(domain.window(scale=3.0))
    assert np.allclose(world(thrice)[1::3, 1::3, 1::3], world(domain))


def test_a_spacing_is_met_to_the_nearest_whole_voxel():
    domain = ramp().domain
    place = domain.window(spacing=(0.5, 0.5, 1.0))
    sizes = np.array(domain.spacing)
    assert place.shape == tuple(np.rint(sizes * domain.shape / (0.5, 0.5, 1.0)).astype(int))
    assert np.allclose(domain.resampled(place).spacing, (0.5, 0.5, 1.0), rtol=0.1)
    plain = VolumeDomain((4, 6, 8), "u1", 0, 9, (1.0, 2.0, 3.0))
    assert plain.window(spacing=(2.0, 2.0, 2.0)).shape == (2, 6, 12)
    assert plain.resampled(plain.window(scale=2.0)).geometry == (0.5, 1.0, 1.5)
    bare = VolumeDomain((4, 6, 8), "u1", 0, 9)
    assert bare.resampled(bare.window(scale=2.0)).geometry == ()
    for wrong in (
        lambda: bare.window(spacing=(1, 1, 1)),
        lambda: plain.window(spacing=(0, 1, 1)),
        lambda: plain.window(spacing=(1, 1)),
        lambda: plain.window(spacing=(1, 1, 1), scale=2.0),
        lambda: plain.window(crop=(0, 0, 0, 5, 6, 8)),
        lambda: plain.window(cut=(0, 4)),
        lambda: plain.window(cut=(1, -0.1)),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_planes_are_those_of_the_volume(tmp_path):
    fit, _ = small_fit(blob((12, 10, 11)), tmp_path, affine=OBLIQUE)
    whole = render_volume(fit.field)
    domain = fit.signal.domain
    for axis, k in ((0, 3), (1, 9), (2, 0)):
        place = domain.window(cut=(axis, k))
        plane = render_volume(fit.field, place)
        assert plane.shape == (*domain.shape[:axis], 1, *domain.shape[axis + 1 :])
        assert np.abs(plane.squeeze(axis).astype(int) - whole.take(k, axis)).max() <= 1
        there = world(domain.resampled(place)).squeeze(axis)
        assert np.allclose(there, world(domain).take(k, axis))


def test_names_of_the_world_find_axes():
    turned = OBLIQUE[:, [2, 0, 1, 3]]
    domain = ramp(affine=turned).domain
    assert [domain.axis_along(name) for name in "xyz"] == [1, 2, 0]
    assert [ramp(affine=None).domain.axis_along(name) for name in "xyz"] == [2, 1, 0]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_pictures_stand_upright(order, signs):
    """A person's voxels, in any order and direction of axes: up is up, their right on the left."""
    person = np.zeros((8, 8, 8), np.uint8)
    person[6:, 4:, 1] = 100  # right, front, below
    person[1, 2, 5:] = 255  # left, back, above
    array = np.transpose(person, order)[tuple(slice(None, None, signs[i]) for i in order)]
    affine = np.zeros((4, 4))
    for axis, direction in enumerate(order):
        affine[direction, axis] = signs[direction]
    affine[3, 3] = 1
    domain = Volume.from_array(array, affine=affine).domain
    front = picture_of(array.max(axis=order.index(1)), domain, order.index(1))[..., 0]
    expected = np.zeros((8, 8), np.uint8)
    expected[6, :2] = 100
    expected[:3, 6] = 255
    assert np.array_equal(front, expected)


# -------------------------------------------------------------------------------- others


def series(folder, array=None, *, positions=None, syntax=ExplicitVRLittleEndian, **changes):
    """Write a DICOM series, one file a slice, in an order that is none."""
    array = blob((5, 6, 7), np.int16) if array is None else array
    folder.mkdir(exist_ok=True)
    positions = range(len(array)) if positions is None else positions
    for name, k in enumerate(np.random.default_rng(0).permutation(len(array))):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
        meta.TransferSyntaxUID = syntax
        file = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        file.SOPClassUID = meta.MediaStorageSOPClassUID
        file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        file.SeriesInstanceUID = "1.2.3"
        file.Rows, file.Columns = array.shape[1:]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, int(array.dtype.kind == "i")
        file.PixelSpacing = [0.5, 0.75]
        file.ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6]
        normal = np.array([0, -0.6, 0.8])
        file.ImagePositionPatient = [*map(float, (10, 20, 30) + 2.5 * normal * positions[k])]
        file.RescaleSlope, file.RescaleIntercept = 1, -1024
        file.PixelData = array[k].tobytes()
        for key, value in changes.items():
            value = value(k) if callable(value) else value
            if value is None:
                delattr(file, key)
            else:
                setattr(file, key, value)
        if syntax.is_compressed:
            file.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51nothing "])
        file.save_as(folder / f"IM{name:04}", enforce_file_format=True)
    return folder


def test_dicom_folder(tmp_path):
    array = blob((5, 6, 7), np.int16)
    folder = series(tmp_path / "scan", array)
    (folder / "notes.txt").write_text("no slice")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert kind_of(folder) == "volume"
    volume = inr.open(folder)
    assert np.array_equal(volume.samples[..., 0], array)
    assert volume.domain.scaling == (1, -1024)
    assert volume.domain.space == 1
    assert np.allclose(volume.domain.spacing, (2.5, 0.5, 0.75))
    # the place of row r, column c of slice k, as DICOM has it (LPS), seen in RAS
    k, r, c = 3, 4, 6
    lps = np.array([10, 20, 30]) + 2.5 * k * np.array([0, -0.6, 0.8])
    lps = lps + 0.5 * r * np.array([0, 0.8, 0.6]) + 0.75 * c * np.array([1, 0, 0])
    assert np.allclose(volume.domain.affine @ [k, r, c, 1], [*(lps * [-1, -1, 1]), 1])


def test_dicom_unsigned_single_and_scaled_slices(tmp_path):
    array = blob((4, 6, 7), np.uint16)
    assert inr.open(series(tmp_path / "a", array)).samples.dtype == np.uint16
    one = inr.open(series(tmp_path / "b", array[:1], SliceThickness=3))
    assert one.domain.shape == (1, 6, 7)
    assert one.domain.spacing == pytest.approx((3, 0.5, 0.75))
    each = inr.open(series(tmp_path / "c", array, RescaleSlope=lambda k: k + 1))
    assert each.samples.dtype == np.float32
    assert each.domain.scaling == ()
    expected = array * np.arange(1.0, 5)[:, None, None] - 1024
    assert np.allclose(each.samples[..., 0], expected)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"positions": [0, 1, 2, 4, 5]}, "2.5 to 5 mm apart: one may be missing"),
        ({"positions": [0, 1, 1, 2, 3]}, "several slices of one place"),
        ({"SeriesInstanceUID": lambda k: f"1.2.{1 + k // 3}"}, "holds 2 DICOM series"),
        ({"ImagePositionPatient": None}, "does not say its ImagePositionPatient"),
        ({"PixelSpacing": [0.5]}, "PixelSpacing is malformed"),
        ({"PixelSpacing": lambda k: [0.5 + k, 0.5]}, "has another PixelSpacing"),
        ({"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1 - k / 9, 0]}, "has another Image"),
        ({"Columns": lambda k: int(7 - k // 4)}, "is of another size"),
        ({"NumberOfFrames": 3}, "several frames"),
        ({"Rows": 5000, "Columns": 60000}, "the limit is"),
        ({"PixelData": b"1234"}, "is damaged"),
        ({"syntax": DeflatedExplicitVRLittleEndian}, "is deflated"),
        ({"syntax": JPEG2000Lossless}, "compressed in a way that is not read here"),
    ],
)
def test_dicom_that_is_no_regular_series(tmp_path, changes, told):
    folder = series(tmp_path / "scan", **changes)
    with pytest.raises(InputError, match=told) as caught:
        inr.open(folder)
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)


def test_single_dicom_files_and_other_folders(tmp_path, capsys):
    path = next(series(tmp_path / "scan").iterdir())
    with pytest.raises(InputError, match="give the folder that holds the series"):
        inr.open(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=f"scan: {path.name}: is damaged"):
        inr.open(tmp_path / "scan")
    (tmp_path / "empty").mkdir()
    assert main(["fit", str(tmp_path / "empty")]) == 3
    assert "is a folder of neither pictures nor DICOM files" in capsys.readouterr().err


def test_tiff_stacks(tmp_path):
    array = blob((5, 6, 7), np.uint16)
    plain, imagej, ome = (tmp_path / f"{n}.tif" for n in ("plain", "imagej", "ome"))
    tifffile.imwrite(plain, array, photometric="minisblack", compression="zlib")
    tifffile.imwrite(
        imagej,
        array,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"spacing": 3.0, "unit": "micron", "axes": "ZYX"},
    )
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 3, "axes": "ZYX"}
    tifffile.imwrite(ome, array, ome=True, metadata=sizes)
    for path, spacing in ((plain, ()), (imagej, (3, 0.5, 0.25)), (ome, (3, 0.5, 0.25))):
        assert kind_of(path) == kind_of(path.read_bytes()) == "volume"
        volume = inr.open(path)
        assert np.array_equal(volume.samples[..., 0], array)
        assert volume.domain.spacing == pytest.approx([s / 1000 for s in spacing], rel=1e-6)
    with pytest.raises(LimitExceeded):
        open_volume(plain, Limits(samples=200))
    plain.write_bytes(plain.read_bytes()[:-30])
    with pytest.raises(InputError, match="plain.tif"):
        inr.open(plain, kind="volume")


def test_numpy_files(tmp_path):
    array = blob((5, 6, 7), np.uint16)
    np.save(tmp_path / "x.npy", array)
    volume = inr.open(tmp_path / "x.npy")
    assert isinstance(volume, Volume)
    assert np.array_equal(volume.samples[..., 0], array)
    assert isinstance(volume.samples.base, np.memmap)  # nothing is read before it is needed
    np.save(tmp_path / "x.npy", np.asfortranarray(array).astype(">u2"))
    assert np.array_equal(inr.open(tmp_path / "x.npy").samples[..., 0], array)
    np.savez(tmp_path / "x.npz", array, spacing=2.5)
    assert inr.open(tmp_path / "x.npz").domain.spacing == (2.5, 2.5, 2.5)
    np.savez(tmp_path / "x.npz", ct=array, affine=OBLIQUE, scaling=[2, -1])
    domain = inr.open(tmp_path / "x.npz").domain
    assert np.array_equal(domain.affine, OBLIQUE)
    assert (domain.scaling, domain.space) == ((2, -1), 2)
    again = inr.open(tmp_path / "x.npz", spacing=[1.0, 2.0, 3.0]).domain
    assert (again.geometry, again.scaling) == ((1, 2, 3), (2, -1))
    for extras, told in (
        ({"spacing": [1, 2]}, "is damaged"),
        ({"spacing": [1, 0, 2]}, "voxels have no size"),
        ({"affine": np.eye(3)}, "no 4 x 4 matrix"),
        ({"affine": np.zeros((4, 4))}, "no 4 x 4 matrix"),
        ({"scaling": [0, 1]}, "slope is zero"),
        ({"spacing": np.nan}, "place in space is malformed"),
        ({"spacing": np.ones(100)}, "no short list"),
        ({"other": array}, "holds 2 arrays"),
    ):
        np.savez(tmp_path / "x.npz", ct=array, **extras)
        with pytest.raises(InputError, match=told):
            inr.open(tmp_path / "x.npz", kind="volume")


def test_the_kind_is_told_by_what_is_inside(tmp_path):
    def kind(array, name=None, **extras):
        path = tmp_path / ("x.npy" if name is None else "x.npz")
        if name is None:
            np.save(path, array)
        else:
            np.savez(path, **{name: array}, **extras)
        assert kind_of(path) == kind_of(path.read_bytes())
        return kind_of(path)

    def of(*shape, dtype=np.uint8):
        return np.zeros(shape, dtype)

    for dtype in (np.uint8, np.int16, np.int64, np.bool_, np.float32):
        assert kind(of(5, 6, 7, dtype=dtype)) == kind(of(5, 6, 7, dtype=dtype), "a") == "volume"
    assert kind(of(5, 6, 7, dtype=float), "a") == "array"
    assert kind(of(5, 6, 7, dtype=float)) == "image"
    assert kind(of(5, 6, 3)) == kind(of(5, 6)) == "image"
    assert kind(of(5, 6, 3), "a") == kind(of(5, 6), "a") == kind(of(5, 6, 7, 2), "a") == "array"
    assert kind(of(5, 6, 7), "a", spacing=1.0) == "volume"
    assert kind(of(5, 6, 7), "a", b=of(5, 6, 7)) == "array"
    if "video" in KINDS:
        assert kind(of(5, 6, 7), "frames", fps=25) == kind(of(5, 6, 7, 3), "a") == "video"
        frames = [PIL.Image.fromarray(of(8, 8) + 90 * k) for k in range(3)]
        for form in ("GIF", "PNG", "WEBP"):
            file = io.BytesIO()
            frames[0].save(file, form, save_all=True, append_images=frames[1:])
            assert kind_of(file.getvalue()) == "video"
            file = io.BytesIO()
            frames[0].save(file, form)
            assert kind_of(file.getvalue()) == "image"
        (tmp_path / "clip").mkdir()
        frames[0].save(tmp_path / "clip" / "1.png")
        assert kind_of(tmp_path / "clip") == "video"
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    assert kind_of(tmp_path / "broken.npz") == "array"
    assert kind_of(tmp_path / "missing.nii.gz") == "volume"
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + bytes(40))
    assert kind_of(tmp_path / "broken.tif") == "image"


# ----------------------------------------------------------------------- header, metrics


@pytest.mark.parametrize(
    "items",
    [
        None,
        [[2, 3, 4], "u1", 0, 9, [], []],
        [[2, 3], "u1", 0, 9, [], [], 0],
        [[2, 3, 0], "u1", 0, 9, [], [], 0],
        [[2, 3, 1 << 31], "u1", 0, 9, [], [], 0],
        [[2, 3, True], "u1", 0, 9, [], [], 0],
        [(2, 3, 4), "u1", 0, 9, [], [], 0],
        [[2, 3, 4], "f8", 0.0, 9.0, [], [], 0],
        [[2, 3, 4], "u1", 0, 256, [], [], 0],
        [[2, 3, 4], "u1", 9, 0, [], [], 0],
        [[2, 3, 4], "f4", 0, 1, [], [], 0],
        [[2, 3, 4], "u1", 0, 9, [1.0, 1.0], [], 0],
        [[2, 3, 4], "u1", 0, 9, [1.0, 1.0, 0.0], [], 0],
        [[2, 3, 4], "u1", 0, 9, [1.0, 1.0, -1.0], [], 0],
        [[2, 3, 4], "u1", 0, 9, [1.0, 1.0, 1], [], 0],
        [[2, 3, 4], "u1", 0, 9, [1.0, 1.0, 1e300], [], 0],
        [[2, 3, 4], "u1", 0, 9, [1.0, 1.0, float("nan")], [], 0],
        [[2, 3, 4], "u1", 0, 9, [0.0] * 12, [], 1],
        [[2, 3, 4], "u1", 0, 9, [1.0] * 12, [], 0],
        [[2, 3, 4], "u1", 0, 9, [1.0] * 12, [], 6],
        [[2, 3, 4], "u1", 0, 9, [1.0] * 3, [], 1],
        [[2, 3, 4], "u1", 0, 9, [], [1.0], 0],
        [[2, 3, 4], "u1", 0, 9, [], [0.0, 1.0], 0],
        [[2, 3, 4], "u1", 0, 9, [], [1.0, float("inf")], 0],
        [[2, 3, 4], "u1", 0, 9, [], [], None],
        [[2, 3, 4], ["u1"], 0, 9, [], [], 0],
    ],
)
def test_malformed_headers_are_refused(items):
    with pytest.raises(CorruptFile):
        VolumeDomain.from_header(items)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4)), np.zeros((3, 4, 5, 1)), np.zeros((3, 0, 4)),
              np.full((2, 2, 2), 1 << 40), np.zeros((2, 2, 2), complex)],
)  # fmt: skip
def test_arrays_that_are_no_volume(array):
    with pytest.raises(InputError, match="\n{0}"):
        Volume.from_array(array)


def test_metrics_are_what_they_say(tmp_path):
    array = blob((12, 10, 11), np.int32) ** 3
    fit, path = small_fit(array, tmp_path)
    decoded = inr.render(inr.load(path))[..., 0]
    error = np.square(decoded - array.astype(float)).mean()
    psnr = 10 * np.log10(float(np.ptp(array)) ** 2 / error)
    assert fit.signal.metrics(inr.load(path))["psnr"] == pytest.approx(psnr, abs=1e-6)


# --------------------------------------------------------------------------------- field


def test_the_default_starts_at_the_signal_whatever_its_shape(shared):
    with np.load(shared / "volume" / "stent_ct.npz") as archive:
        stent = archive["arr_0"]
    preset = presets.default("volume")
    for part in (stent[80:144, :64, 40:100], stent[60:180, 60:61, 30:90]):
        signal = Volume.from_array(part)
        _, field = build_field(signal, preset, 0)
        ranks = field.hyperparameters["rank"]
        assert all(rank <= max(2, n) for rank, n in zip(ranks, part.shape, strict=True))
        assert signal.metrics(field)["psnr"] >= preset.hyperparameters["start_psnr"]


def test_sines_are_suited_to_the_shape_where_nothing_else_is_given(shared):
    with np.load(shared / "volume" / "stent_ct.npz") as archive:
        signal = Volume.from_array(archive["arr_0"][80:144, :48, 40:100])
    sines = {"decomposition": "tucker", "channel_factors": "shared", "init": "svd"}
    _, field = build_field(signal, presets.Preset("finr", sines), 0)
    given = field.hyperparameters
    assert [options["hidden_features"] for options in given["base_options"]] == [96, 72, 90]
    assert [options["first_omega"] for options in given["base_options"]] == [96, 72, 90]
    core = np.prod(given["rank"])
    assert core == pytest.approx(0.2 * signal.count, rel=0.1)
    assert signal.metrics(field)["psnr"] > 30
    mine = sines | {"rank": 7, "base_options": {"first_omega": 20.0}}
    _, field = build_field(signal, presets.Preset("finr", mine), 0)
    assert field.hyperparameters["rank"] == 7
    assert [o["first_omega"] for o in field.hyperparameters["base_options"]] == [20.0] * 3
    assert field.hyperparameters["base_options"][0]["hidden_features"] == 96


def test_between_voxels_the_default_stays_within_its_neighbours(shared):
    with np.load(shared / "volume" / "stent_ct.npz") as archive:
        part = archive["arr_0"][80:144, 10:74, 40:100]
    fit = inr.fit(Volume.from_array(part), steps=1)
    own = render_volume(fit.field).astype(float)
    between = render_volume(fit.field, fit.signal.domain.window((127, 64, 60), crop=(
        0.5, 0, 0, 63.5, 64, 60)))[::2].astype(float)  # fmt: skip
    middle = (own[:-1] + own[1:]) / 2
    step = np.abs(np.diff(own, axis=0))
    assert np.sqrt(np.square(between[:63] - middle).mean()) < 0.5 * np.sqrt(np.square(step).mean())


# -------------------------------------------------------------------------- command line


def test_from_file_to_file_and_back(tmp_path, capfdbinary):
    array = blob((12, 10, 11))
    source = saved(
        tmp_path, "scan.nii.gz", nifti(array, suffix=".nii.gz", scl_slope=2, scl_inter=-5)
    )
    assert main(["fit", str(source)]) == 0
    stored = tmp_path / "scan.inr"
    assert main(["decode", str(stored), "-o", str(tmp_path / "same.nii.gz")]) == 0
    image = nibabel.load(tmp_path / "same.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert np.allclose(image.affine, OBLIQUE, atol=1e-5)
    assert (image.dataobj.slope, image.dataobj.inter) == (2, -5)
    same = image.dataobj.get_unscaled()
    assert np.abs(same - array).mean() < 0.02 * np.ptp(array)
    capfdbinary.readouterr()
    assert main(["info", "--json", str(stored)]) == 0
    facts = json.loads(capfdbinary.readouterr().out)
    assert (facts["kind"], facts["slope"], facts["shape"]) == ("volume", 2.0, [12, 10, 11])

    def decoded(name, *words):
        path = tmp_path / name
        assert main(["decode", str(stored), "-o", str(path), *words]) == 0
        return path

    assert np.array_equal(np.load(decoded("a.npy")), same)
    with np.load(decoded("a.npz", "--size", "24x20x22")) as archive:
        assert archive["volume"].shape == (24, 20, 22)
        assert np.allclose(archive["affine"][:3, :3], OBLIQUE[:3, :3] / 2, atol=1e-5)
        assert archive["scaling"].tolist() == [2, -5]
    assert np.array_equal(tifffile.imread(decoded("a.tif")), same)
    assert inr.open(decoded("b.tif")).domain.spacing == pytest.approx(
        tuple(np.linalg.norm(OBLIQUE[:3, :3], axis=0)), rel=1e-5
    )
    half = nibabel.load(decoded("half.nii", "--spacing", "2", "--crop", "2,0,0,10,10,11"))
    corners = nibabel.affines.apply_affine(half.affine, [-0.5] * 3)
    assert np.allclose(corners, OBLIQUE[:3] @ [1.5, -0.5, -0.5, 1], atol=1e-4)
    plane = np.load(decoded("z.npy", "--slice", "z=7"))
    assert np.abs(plane.astype(int) - same[:, :, 7]).max() <= 1
    assert nibabel.load(decoded("z.nii", "--slice", "2=100%")).shape == (12, 10, 1)
    picture = np.asarray(PIL.Image.open(decoded("z.png", "--slice", "2=7")))
    expected = np.rint((plane - array.min()) / np.ptp(array) * 65535)[::-1, ::-1].T
    assert np.abs(picture - expected).max() <= 1
    capfdbinary.readouterr()
    assert main(["decode", str(stored), "-o", "-"]) == 0
    data = capfdbinary.readouterr().out
    assert np.array_equal(open_volume(data).samples[..., 0], same)


def test_words_that_make_no_sense(tmp_path, capsys):
    _, stored = small_fit(blob(), tmp_path)
    for words, told in (
        (["--shape", "24,6"], "--shape is '24,6': give numbers such as"),
        (["--size", "1x2x3", "--shape", "1,2,3"], "exclude each other"),
        (["--size", "1x2.5x3"], "--size is (1, 2.5, 3): give 3 whole numbers"),
        (["--size", "1x2x3", "--scale", "2"], "give size or scale"),
        (["--scale", "-1"], "--scale is -1"),
        (["--spacing", "1,1,1"], "the spacing of this volume is unknown"),
        (["--crop", "0,0,0,99,1,1"], "--crop is (0, 0, 0, 99, 1, 1)"),
        (["--slice", "3=4"], "--slice is '3=4'"),
        (["--slice=-1=4"], "--slice is '-1=4'"),
        (["--slice", "z"], "--slice is 'z'"),
        (["--slice", "z=nan"], "is outside"),
        (["--slice", "z=9.5"], "--slice: position 9.5 along axis 0 is outside: give 0 to 8"),
        (["-o", str(tmp_path / "x.png")], "or a picture of one plane with --slice"),
        (["-o", str(tmp_path / "x.gz")], "volumes are not written as '.gz'"),
        (["-o", str(tmp_path / "x.nii"), "--shape", "40000,1,1"], "axes of 32,767"),
        (["--rate", "8000"], "--rate is for sound"),
        (["--scale", "1000000", "-o", "-"], "are too many"),
    ):
        assert main(["decode", str(stored), *words]) == 2, words
        assert told in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"v.inr"}


def test_large_renderings_are_written_part_by_part(tmp_path, monkeypatch):
    field = ramp((64, 64, 64), None)
    place = Window((7, 40, 30), (0.0, 0.0, 0.0), (64.0, 64.0, 64.0))
    whole = render_volume(field, place)
    monkeypatch.setattr(volumeout, "SLAB_VOXELS", 2000)
    for suffix in (".npy", ".nii", ".nii.gz", ".tif", ".npz"):
        write_volume(tmp_path / f"x{suffix}", field, place)
        again = open_volume(tmp_path / f"x{suffix}").samples[..., 0]
        assert np.abs(again - whole).max() < 1e-6
