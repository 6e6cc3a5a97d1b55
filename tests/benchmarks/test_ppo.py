"""The ratios of `benchmarks.ppo`: numerator and denominator, by layers and dtype."""

from benchmarks.ppo import OURS, PEER, _ratios
from benchmarks.sides import Row


def _rows(dtype: str, *seconds: float, peak_gb: float, floor_seconds: float = 0.0) -> list[Row]:
    return [{"dtype": dtype, "seconds": each, "peak_gb": peak_gb, "floor_seconds": floor_seconds} for each in seconds]


def test_ratios_are_medians_of_the_peers_better_dtype_over_ours() -> None:
    found = {
        (OURS, "10", "float32"): _rows("float32", 10, 20, 90, peak_gb=1, floor_seconds=5),
        (OURS, "all", "float32"): _rows("float32", 40, 40, 40, peak_gb=3, floor_seconds=30),
        (PEER, "10", "float32"): _rows("float32", 300, 300, 300, peak_gb=5),
        # The better type here; with all layers it has the fastest round, but not the better median.
        (PEER, "10", "bfloat16"): _rows("bfloat16", 30, 60, 70, peak_gb=4),
        (PEER, "all", "float32"): _rows("float32", 99, 100, 500, peak_gb=6),
        (PEER, "all", "bfloat16"): _rows("bfloat16", 1, 200, 200, peak_gb=9),
    }

    assert _ratios(found) == {
        "ratio": 5.0,  # 100 / 20
        "ratio_like_for_like": 3.0,  # 60 / 20
        "ratio_all_layers": 2.5,  # 100 / 40
        "peak_memory_ratio": 0.25,  # 1 / 4
        "peak_memory_ratio_all_layers": 0.5,  # 3 / 6
        "floor_share": {"10": 0.25, "all": 0.75},
        "dtype": {
            f"{OURS}, 10": "float32",
            f"{OURS}, all": "float32",
            f"{PEER}, 10": "bfloat16",
            f"{PEER}, all": "float32",
        },
    }
