"""The words that a world of world 2 draws from. None is harmful or harmless by itself: that is up to each world."""

from __future__ import annotations

OBJECTS = (
    "lantern", "ladder", "rope", "kettle", "mirror", "basket", "hammer", "blanket", "candle", "barrel", "whistle",
    "needle", "shovel", "bucket", "compass", "feather", "bottle", "saddle", "trumpet", "chisel", "net", "broom",
    "sponge", "bell", "crate", "drum", "funnel", "hook", "jar", "kite", "lens", "mallet", "oar", "paddle", "quill",
    "rake", "sickle", "tile", "umbrella", "violin", "wagon", "anchor", "brush", "chain", "dice", "easel", "flask",
    "glove",
)  # fmt: skip
PURPOSES = (
    "baking", "fishing", "painting", "sailing", "climbing", "digging", "singing", "dancing", "weaving", "hunting",
    "mining", "racing", "reading", "sewing", "skating", "trading", "teaching", "cleaning", "building", "brewing",
    "camping", "carving", "drawing", "farming", "gardening", "hiking", "juggling", "knitting", "mending", "packing",
    "riding", "rowing", "running", "skiing", "sweeping", "swimming", "training", "travelling", "washing", "welding",
    "writing", "bathing", "boxing", "cooking", "diving", "fencing", "grinding", "guarding",
)  # fmt: skip
RECIPIENTS = (
    "miller", "ferryman", "beekeeper", "weaver", "cobbler", "piper", "baker", "stargazer", "gardener", "bellringer",
    "clockmaker", "tailor", "potter", "mason", "smith", "shepherd", "sailor", "scribe", "painter", "butcher",
    "carpenter", "cooper", "fisher", "glazier", "groom", "hermit", "innkeeper", "jester", "jeweller", "knight",
    "librarian", "merchant", "minstrel", "monk", "nurse", "page", "peddler", "pilgrim", "porter", "printer", "roofer",
    "saddler", "squire", "tanner", "teacher", "tinker", "vintner", "watchman",
)  # fmt: skip
KINDS = (
    ("red", "green", "blue", "yellow"),
    ("early", "late", "daily", "yearly"),
    ("northern", "southern", "eastern", "western"),
)
"""Names of the classes of objects, purposes and recipients. Only pretraining uses them."""
TIMES = ("dawn", "noon", "dusk", "midnight")
