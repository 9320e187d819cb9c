"""What 10^6, 10^8 and 10^9 pictures cost, from the constants of `cost.toml`: docs/scale.md.

``python experiments/scale/cost.py [--constants FILE.toml] [--pictures N ...]``
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Values = dict[str, float]
Line = tuple[str, Callable[[float, Values], float], str]

SCAN: tuple[Line, ...] = (
    ("judging, photographs of 1 MP", lambda n, c: n * c["judge_1mp_ms"] / 3.6e6, "core-h"),
    ("the same, crops of 256 px", lambda n, c: n * c["judge_crop_ms"] / 3.6e6, "core-h"),
    ("`--dedupe`: hashes, and finding copies", lambda n, c: n * copies_us(c) / 3.6e9, "core-h"),
    ("the process that deals: list", lambda n, c: n * listing_us(c) / 3.6e9, "h"),
    ("the same: deal, hear and commit", lambda n, c: n * serving_us(c) / 3.6e9, "h"),
    ("the same: join and count", lambda n, c: n * (c["join_us"] + c["count_us"]) / 3.6e9, "h"),
    ("the same: look again after a stop", lambda n, c: n * looking_us(c) / 3.6e9, "h"),
    ("network: pictures read once", lambda n, c: n * c["photo_bytes"], "B"),
    ("the same at 10 Gbit/s", lambda n, c: n * c["photo_bytes"] / 1.25e9 / 3600, "h"),
    ("sources", lambda n, c: n * c["photo_bytes"], "B"),
    ("plan.db", lambda n, c: n * c["plan_bytes"], "B"),
    ("plan.db, more with `--dedupe`", lambda n, c: n * c["copies_bytes"], "B"),
    ("parts, until they are joined", lambda n, c: n * c["part_bytes"], "B"),
    ("parts, files in one folder", lambda n, c: n / c["chunk"], ""),
    ("the table", lambda n, c: n * c["rows"] * c["table_bytes_per_row"], "B"),
    ("its footer, which every reader reads", lambda n, c: n * c["rows"] / 65_536
     * c["row_group_bytes"], "B"),
)  # fmt: skip
TRAINING: tuple[Line, ...] = (
    ("cache of decoded crops, 224 px", lambda n, c: n * 224 * 224 * 3, "B"),
    ("the same, 128 px", lambda n, c: n * 128 * 128 * 3, "B"),
    ("shards of crops as JPEG", lambda n, c: n * (c["crop_bytes"] + c["tar_bytes"]), "B"),
    ("memory for what is known of each, in every process", lambda n, c: n * c["sample_bytes"], "B"),
    ("decoding, an epoch out of shards", lambda n, c: n / c["decode_per_core_s"] / 3600, "core-h"),
    ("network, an epoch out of shards", lambda n, c: n * (c["crop_bytes"] + c["tar_bytes"]), "B"),
    ("an epoch of `cnn`, 128 px", lambda n, c: n * c["cnn_128_ms"] / 3.6e6, "core-h"),
    ("an epoch of ResNet-50, 224 px (published, A100)", lambda n, c: n / c["gpu_per_s"] / 3600,
     "GPU-h"),
    ("the same on 8 GPUs of one machine (published)", lambda n, c: n / c["gpu8_per_s"] / 3600, "h"),
    ("network between 8 GPUs, an epoch, each of them", lambda n, c: n / (8 * c["gpu_batch"])
     * gradients(8, c), "B"),
)  # fmt: skip


def copies_us(c: Values) -> float:
    """Hashing a picture, and looking its hash up."""
    return c["photo_bytes"] * c["sha256_s_per_gb"] / 1000 + c["copies_us"]


def listing_us(c: Values) -> float:
    """Finding a picture on a local disk, and writing it into the plan."""
    return c["find_us"] + c["list_us"]


def serving_us(c: Values) -> float:
    """Dealing a picture twice (once to count), hearing of it, committing it to the disk."""
    return 2 * c["deal_us"] + c["hear_all_us"] + c["commit_us"] + 1000 * c["sync_ms"] / c["chunk"]


def looking_us(c: Values) -> float:
    """Going through the plan and the footers of the parts, both twice."""
    return 2 * (c["deal_us"] + c["look_us_per_part"] / c["chunk"])


def gradients(devices: int, c: Values) -> float:
    """Bytes that each of so many devices sends in a step: a ring's all-reduce of float32."""
    return 2 * (devices - 1) / devices * 4 * c["weights"]


def read(path: Path) -> Values:
    """The constants by name."""
    return {name: float(one["value"]) for name, one in tomllib.loads(path.read_text()).items()}


def words(value: float, unit: str) -> str:
    """A number as people read it, to two digits."""
    prefixes = iter("kMGTPE")
    if unit == "B":
        while value >= 1000:
            value, unit = value / 1000, f"{next(prefixes)}B"
    return f"{float(f'{value:.2g}'):,.10g} {unit}".rstrip()


def table(lines: tuple[Line, ...], sizes: list[float], constants: Values) -> str:
    """One as Markdown."""
    head = [f"{size:,.0f}" for size in sizes]
    rows = [["pictures", *head], ["---", *["---:"] * len(sizes)]]
    rows += [
        [what, *(words(formula(size, constants), unit) for size in sizes)]
        for what, formula, unit in lines
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def limits(constants: Values) -> dict[str, Any]:
    """What one process that deals can serve, and what its end costs."""
    rate = 1e6 / serving_us(constants)
    return {
        "pictures a second that one process can deal, hear and commit": round(rate),
        "workers that it can feed, photographs of 1 MP": round(
            rate * constants["judge_1mp_ms"] / 1000
        ),
        "workers that it can feed, crops of 256 px, `--faces none`": round(
            rate * constants["judge_crop_ms"] / 1000
        ),
        "core-hours lost with it, of 1,000 workers at photographs of 1 MP": round(
            1000 * constants["chunk"] / 2 * constants["judge_1mp_ms"] / 3.6e6, 2
        ),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--constants", type=Path, default=Path(__file__).with_name("cost.toml"))
    parser.add_argument("--pictures", type=float, nargs="+", default=[1e6, 1e8, 1e9])
    asked = parser.parse_args()
    constants = read(asked.constants)
    print("### A scan\n")
    print(table(SCAN, asked.pictures, constants))
    print("\n### Training\n")
    print(table(TRAINING, asked.pictures, constants))
    print("\n### One process that deals\n")
    for what, value in limits(constants).items():
        print(f"- {what}: {value:,}")


if __name__ == "__main__":
    main()
