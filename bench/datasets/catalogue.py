"""The catalogue: what is known of each data set, where it comes from, and which training sets overlap with it.

A fact that could not be found is said to be unknown, never guessed; a copy on the Hub is somebody's, not the authors'.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.datasets.files import PLAIN, Layout
from bench.errors import DatasetError
from dehaze.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """An unofficial copy on the Hub: the repository, and what tells the files of one set from others in it."""

    repo: str
    config: str | None = None
    split: str | None = None
    part: str = ""  # name of the set in the files' paths, where a repository holds several


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One data set.

    `samples` and `pairs` are None where the count is not known. `folders` are those that may hold the set under a data
    root. `numbers` picks the images whose names begin with one of them. `families` are names under which training sets
    are known that share scenes or a source with this set. `fingerprint` is that of the original bytes, where known.
    """

    name: str
    about: str
    license: str
    address: str
    samples: int | None
    pairs: int | None
    split: str
    pairing: str
    folders: tuple[str, ...]
    layout: Layout = PLAIN
    mirror: Mirror | None = None
    numbers: range | None = None
    families: tuple[str, ...] = ()
    fingerprint: str | None = None

    @property
    def summary(self) -> str:
        """Say in one line what the set is."""
        count = f"{self.samples or 'unknown number of'} images, {self.pairs if self.pairs is not None else '?'} pairs"
        source = f"{self.address}; unofficial copy: {self.mirror.repo}" if self.mirror else self.address
        return f"{self.about} ({count}; {self.split}; licence: {self.license}; from {source})"


def _test_images(entry: Entry, numbers: range) -> Entry:
    name, count = f"{entry.name}-{numbers[0]}-{numbers[-1]}", len(numbers)
    return replace(entry, name=name, samples=count, pairs=count, split="the customary test images", numbers=numbers)


_NTIRE = "dronefreak/NTIRE-Haze"
_RESIDE = "https://sites.google.com/view/reside-dehaze-datasets"
_NONE = "none stated"

_NH_HAZE = Entry(
    name="nh-haze",
    about="NH-HAZE: outdoor scenes, non-homogeneous haze of a machine",
    license=_NONE,
    address="https://data.vision.ee.ethz.ch/cvl/ntire20/nh-haze/",
    samples=55,
    pairs=55,
    split="all; 51–55 are the customary test images",
    pairing="01_hazy.png / 01_GT.png in one folder",
    folders=("NH-HAZE", "NH-HAZE/NH-HAZE"),
    mirror=Mirror(repo=_NTIRE, part="nh-haze"),
    families=("nh-haze", "nh-haze 2020", "ntire 2020", "ntire20", "ntire-haze"),
)
_DENSE_HAZE = Entry(
    name="dense-haze",
    about="Dense-Haze: very dense, homogeneous haze of a machine",
    license=_NONE,
    address="https://data.vision.ee.ethz.ch/cvl/ntire19/dense-haze/",
    samples=55,
    pairs=55,
    split="all; 51–55 are the customary test images",
    pairing="hazy/01_hazy.png / GT/01_GT.png",
    folders=("Dense_Haze_NTIRE19", "Dense-Haze"),
    mirror=Mirror(repo=_NTIRE, part="dense-haze"),
    families=("dense-haze", "ntire 2019", "ntire19", "ntire-haze"),
)
_O_HAZE = Entry(
    name="o-haze",
    about="O-HAZE: outdoor scenes, haze of a machine",
    license=_NONE,
    address="https://data.vision.ee.ethz.ch/cvl/ntire18/o-haze/",
    samples=45,
    pairs=45,
    split="all; 41–45 are the customary test images",
    pairing="hazy/01_outdoor_hazy.jpg / GT/01_outdoor_GT.jpg",
    folders=("O-HAZE", "# O-HAZY NTIRE 2018", "O-HAZE/# O-HAZY NTIRE 2018"),
    mirror=Mirror(repo=_NTIRE, part="o-haze"),
    families=("o-haze", "o-hazy", "ntire 2018", "ntire18", "ntire-haze"),
)
_I_HAZE = Entry(
    name="i-haze",
    about="I-HAZE: indoor scenes, haze of a machine",
    license=_NONE,
    address="https://data.vision.ee.ethz.ch/cvl/ntire18/i-haze/",
    samples=35,
    pairs=35,
    split="all; the last five are the customary test images",
    pairing="hazy/01_indoor_hazy.jpg / GT/01_indoor_GT.jpg",
    folders=("I-HAZE", "# I-HAZY NTIRE 2018", "I-HAZE/# I-HAZY NTIRE 2018"),
    mirror=Mirror(repo=_NTIRE, part="i-haze"),
    families=("i-haze", "i-hazy", "ntire 2018", "ntire18", "ntire-haze"),
)
_NH_HAZE2 = Entry(
    name="nh-haze2",
    about="NH-HAZE2: the pairs published for the NTIRE 2021 challenge, non-homogeneous haze of a machine",
    license=_NONE,
    address="https://competitions.codalab.org/competitions/28032",
    samples=25,
    pairs=25,
    split="the challenge's training set; 21–25 are the customary test images",
    pairing="NTIRE2021_Train_Hazy/01.png / NTIRE2021_Train_HazeFree/01.png",
    folders=("NH-HAZE2", "NTIRE2021"),
    layout=Layout(hazy=("ntire2021_train_hazy", "hazy"), clear=("ntire2021_train_hazefree", "clear", "gt")),
    families=("nh-haze2", "nh-haze 2", "nh-haze 2021", "ntire 2021", "ntire21"),
)
_SOTS_INDOOR = Entry(
    name="sots-indoor",
    about="RESIDE SOTS indoor: rendered haze on NYU depth",
    license=_NONE,
    address=f"{_RESIDE}/reside-standard",
    samples=500,
    pairs=500,
    split="test: 50 scenes, ten hazy versions each",
    pairing="hazy/1400_1.png / gt/1400.png, which has 10 pixels more on each side, cut away centrally",
    folders=("SOTS/indoor", "SOTS/indoor/nyuhaze500", "SOTS/nyuhaze500"),
    layout=Layout(border=10),
    families=("reside", "its", "reside6k", "nyu", "nyuhaze500", "sots"),
)
_SOTS_OUTDOOR = Entry(
    name="sots-outdoor",
    about="RESIDE SOTS outdoor: rendered haze on estimated depth",
    license=_NONE,
    address=f"{_RESIDE}/reside-standard",
    samples=500,
    pairs=500,
    split="test: 492 scenes",
    pairing="hazy/0001_0.8_0.2.jpg / gt/0001.png",
    folders=("SOTS/outdoor",),
    families=("reside", "ots", "reside6k", "sots"),
)
_FATTAL = Entry(
    name="fattal",
    about="Fattal's real hazy photographs (Dehazing using Color-Lines, 2014)",
    license=_NONE,
    address="https://www.cs.huji.ac.il/w~raananf/projects/dehaze_cl/results/",
    samples=None,
    pairs=0,
    split="test",
    pairing="none: no clear images",
    folders=("Fattal",),
    families=("fattal",),
)
_RTTS = Entry(
    name="rtts",
    about="RESIDE RTTS: real hazy photographs of streets, annotated for detection",
    license=_NONE,
    address=f"{_RESIDE}/reside-%CE%B2",
    samples=4322,
    pairs=0,
    split="test",
    pairing="none: no clear images",
    folders=("RTTS",),
    layout=Layout(hazy=("jpegimages",)),
    families=("rtts", "reside-beta"),
)

_SETS = (
    _NH_HAZE,
    _test_images(_NH_HAZE, range(51, 56)),
    _NH_HAZE2,
    _DENSE_HAZE,
    _test_images(_DENSE_HAZE, range(51, 56)),
    _O_HAZE,
    _test_images(_O_HAZE, range(41, 46)),
    _I_HAZE,
    _test_images(_I_HAZE, range(31, 36)),
    _SOTS_INDOOR,
    _SOTS_OUTDOOR,
    Entry(
        name="hsts",
        about="RESIDE HSTS, its rendered half: outdoor",
        license=_NONE,
        address=f"{_RESIDE}/reside-standard",
        samples=10,
        pairs=10,
        split="test",
        pairing="synthetic/synthetic/0586.jpg / synthetic/original/0586.jpg",
        folders=("HSTS",),
        layout=Layout(hazy=("synthetic/synthetic",), clear=("synthetic/original",)),
        families=("reside", "ots", "hsts"),
    ),
    Entry(
        name="hsts-real",
        about="RESIDE HSTS, its real half: hazy photographs",
        license=_NONE,
        address=f"{_RESIDE}/reside-standard",
        samples=10,
        pairs=0,
        split="test",
        pairing="none: no clear images",
        folders=("HSTS",),
        layout=Layout(hazy=("real-world", "real_world", "realworld"), clear=()),
        families=("hsts",),
    ),
    Entry(
        name="haze4k",
        about="Haze4K, its test set: rendered haze, indoor and outdoor",
        license=_NONE,
        address="https://github.com/liuye123321/DMT-Net",
        samples=1000,
        pairs=1000,
        split="test",
        pairing="haze/1_0.89_1.56.png / gt/1.png",
        folders=("Haze4K/test", "Haze4K/Haze4K/test", "HAZE4K/test"),
        layout=Layout(hazy=("haze", "hazy")),
        families=("haze4k", "reside", "ots", "nyu"),
    ),
    Entry(
        name="reside-6k",
        about="RESIDE-6K, its test set: SOTS in the sizes of DehazeFormer's mixed setting",
        license=_NONE,
        address="https://github.com/IDKiro/DehazeFormer",
        samples=1000,
        pairs=1000,
        split="test",
        pairing="test/hazy/NAME / test/GT/NAME",
        folders=("RESIDE-6K/test",),
        mirror=Mirror(repo="desonglll/RESIDE-6K", split="test"),
        families=("reside", "its", "ots", "reside6k", "sots"),
    ),
    _RTTS,
    Entry(
        name="urhi",
        about="RESIDE URHI: real hazy photographs without annotation",
        license=_NONE,
        address=f"{_RESIDE}/reside-%CE%B2",
        samples=4807,
        pairs=0,
        split="one part, in most papers trained on",
        pairing="none: no clear images",
        folders=("URHI", "UnannotatedHazyImages"),
        families=("urhi", "reside-beta"),
    ),
    _FATTAL,
    Entry(
        name="bedde",
        about="BeDDE: real fog, and a clear photograph of the place; its authors compare inside masks, this does not",
        license=_NONE,
        address="https://github.com/xiaofeng94/BeDDE-for-defogging",
        samples=208,
        pairs=208,
        split="test",
        pairing="beijing/fog/beijing_1.png / beijing/gt/beijing_clear.png",
        folders=("BeDDE",),
        layout=Layout(hazy=("*/fog",), clear=("*/gt",)),
        families=("bedde", "exbedde"),
    ),
    Entry(
        name="8kdehaze-mini",
        about="8KDehaze, the small version: rendered haze of four densities on images of 8192 pixels",
        license=_NONE,
        address="https://github.com/CastleChen339/DehazeXL",
        samples=None,
        pairs=None,
        split="one part",
        pairing="cloud_L1/NAME.png … cloud_L4/NAME.png / clear/NAME.png",
        folders=("8KDehaze_mini", "8KDehaze"),
        layout=Layout(hazy=("cloud_l[1-4]",)),
        mirror=Mirror(repo="fengyanzi/8KDehaze_mini"),
        families=("8kdehaze",),
    ),
)

# Small parts of the sets above, named by their size; a model that is added later is scored on all of them at once.
_PARTS = (
    replace(
        _DENSE_HAZE,
        name="dense-haze-test-5",
        samples=5,
        pairs=5,
        split="the five test pairs 51–55",
        pairing="hazy/51.png / clear/51.png",
        folders=("dense-haze-test",),
        mirror=None,
        fingerprint="7a39b61561852028447f82a14c0967d2bd93a7aafd5069a3d392348295ae8a03",
    ),
    replace(
        _NH_HAZE2,
        name="nh-haze2-5",
        samples=5,
        pairs=5,
        split="the five pairs 21–25",
        pairing="hazy/21.png / clear/21.png",
        folders=("nh-haze2",),
        layout=PLAIN,
        fingerprint="d69e721afe12e4954c61494058243a676054616fb82b836ae56d1d26a6793dd3",
    ),
    replace(
        _O_HAZE,
        name="o-haze-3",
        samples=3,
        pairs=3,
        split="the three pairs 27, 35 and 41",
        pairing="hazy/27.jpg / clear/27.jpg",
        folders=("o-haze-3",),
        mirror=None,
        fingerprint="da22112fbc82a02a347c10c1a3a2393e85baf9d7553be941e61b805768a0650f",
    ),
    replace(
        _SOTS_OUTDOOR,
        name="sots-outdoor-25",
        samples=25,
        pairs=25,
        split="25 scenes, one hazy version each",
        folders=("sots-outdoor-25",),
        fingerprint="9cbd3dbf02ab4264086f0b8d78d0d0dca3de78d2d3ee506e23516731900417bd",
    ),
    replace(
        _SOTS_INDOOR,
        name="sots-indoor-15",
        samples=15,
        pairs=15,
        split="15 scenes, one hazy version each; clear images already cut to 620×460",
        pairing="hazy/1404_9.png / clear/1404.png",
        folders=("sots-indoor-15",),
        layout=PLAIN,
        fingerprint="3413a3fabb232788043eb30ad16812aad2ce5cf46f62659906650d8dd07a0438",
    ),
    replace(
        _FATTAL,
        name="fattal-27",
        about="27 classic real hazy photographs, Fattal's and relatives",
        samples=27,
        folders=("real/fattal",),
        fingerprint="d376c134010497acc3ac03cd5d7101a9dab6c23887d41dce563d0430284c9bfe",
    ),
    replace(
        _RTTS,
        name="rtts-25",
        samples=25,
        split="25 of the photographs",
        folders=("real/rtts",),
        fingerprint="f6ade372d1ce5df11b43d6345eb46085c810dedf5ce048fa8bf314801e27ce58",
    ),
    Entry(
        name="clear-20",
        about="haze-free photographs of several collections, which should be left alone: each is its own clear image",
        license="none for the collection; the photographs keep their owners' rights",
        address="none: put together for this benchmark",
        samples=20,
        pairs=20,
        split="test",
        pairing="images/0022.jpg, which is its own clear image",
        folders=("clear",),
        layout=Layout(hazy=("images",), clear=("images",)),
        fingerprint="2d40ee0d97dfe75a179680eb91916f51c16917b4c21ebc92ec7c3b0c6bda6bf1",
    ),
)

_CATALOGUE: Registry[Entry] = Registry("data set", DatasetError)
for _entry in (*_SETS, *_PARTS):
    _CATALOGUE.register(_entry.name)(_entry)

SUITES = {"eval-subsets": tuple(entry.name for entry in _PARTS)}


def names() -> list[str]:
    """List the names of the catalogue."""
    return _CATALOGUE.names()


def get(name: str) -> Entry:
    """Return the entry called `name`. Raises DatasetError that suggests the nearest names."""
    return _CATALOGUE.get(name)


def contaminated(entry: Entry | str, trained_on: Iterable[str]) -> list[str]:
    """Return the names in `trained_on`, as a model's card states them, that overlap with a data set.

    They overlap if they hold the name of one of its families, however it is written ("RESIDE (ITS)", "NH-HAZE train",
    "org/NH-HAZE"): a scene or its source may have been seen in training. A set outside the catalogue, given by name,
    overlaps with itself alone. What a card does not tell cannot be found.
    """
    if isinstance(entry, str):
        whole = re.sub(r"-first\d+$", "", entry)
        own = re.sub(r"^(folder:|hub:[^/]*/)|[@:].*$", "", whole)
        families = (*(get(whole).families if whole in names() else ()), own)
    else:
        families = (*entry.families, entry.name)
    return [name for name in trained_on if any(mentions(name, family) for family in families)]


def mentions(text: str, name: str) -> bool:
    """Tell whether `text` holds `name` as whole words, however its parts are joined: O-HAZE, O_Haze, ohaze."""
    wanted = "".join(_words(name))
    words = _words(text)
    runs = (words[start:stop] for start in range(len(words)) for stop in range(start + 1, len(words) + 1))
    return any("".join(run) == wanted for run in runs)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
