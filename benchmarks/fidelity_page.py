"""What the fidelity page shows: the targets beside the figures, and which curves share a plot."""

from __future__ import annotations

from benchmarks.page import Plot
from benchmarks.report import Target

TARGETS = (
    Target(name="tokenizer_psnr_db", limit=27.0),
    Target(name="codebook_usage", limit=0.8),
    Target(name="psnr_gain_over_repeat_db", key="1", limit=4.0),
    Target(name="psnr_gain_over_repeat_db", key="6", limit=4.0),
    Target(name="psnr_gain_over_repeat_db", key="12", limit=3.0),
    Target(name="psnr_gain_over_repeat_db", key="24", limit=2.0),
    Target(name="delta_psnr_db", key="6", limit=2.0),
    Target(name="delta_psnr_db", key="12", limit=3.0),
    Target(name="yaw_rate_correlation", limit=0.95),
    Target(name="speed_correlation", limit=0.9),
    Target(name="trajectory_error_over_floor_at_2s", limit=2.0, is_minimum=False),
    Target(name="steering_sign_accuracy", limit=0.95),
    Target(name="speed_order_accuracy", limit=0.95),
    Target(name="drift_readable_share_at_600", limit=0.95),
)


def _beside_references(name: str, *, of: str = "") -> dict[str, str]:
    prefixes = {"imagined": "", "repeat-last": "repeat_", "tokenizer ceiling": "ceiling_"}
    return {label: f"{of}{prefix}{name}" for label, prefix in prefixes.items()}


def _beside_truth(name: str, *, tokenized_too: bool = True) -> dict[str, str]:
    lines = {"imagined": name, "true frames": f"{name}_true_frames"}
    return lines | ({"tokenized frames": f"{name}_tokenized_frames"} if tokenized_too else {})


PLOTS = (
    Plot(title="PSNR", unit="dB", lines=_beside_references("psnr_db")),
    Plot(title="SSIM", unit="", lines=_beside_references("ssim")),
    Plot(title="LPIPS (lower is better)", unit="", lines=_beside_references("lpips")),
    Plot(
        title="What the model adds",
        unit="dB",
        lines={
            "gain over repeat-last": "psnr_gain_over_repeat_db",
            "the same without a map": "psnr_gain_over_repeat_db_without_map",
            "true minus random actions": "delta_psnr_db",
        },
    ),
    Plot(
        title="Yaw rate: commanded and read", unit="correlation", lines=_beside_truth("yaw_rate_correlation")
    ),
    Plot(title="Speed: commanded and read", unit="correlation", lines=_beside_truth("speed_correlation")),
    Plot(title="Trajectory error", unit="m", lines=_beside_truth("trajectory_error_m")),
    Plot(
        title="Drift: share of readable frames",
        unit="share",
        lines=_beside_truth("drift_readable_share", tokenized_too=False),
    ),
    Plot(
        title="Drift: commanded and read motion",
        unit="correlation",
        lines={
            "yaw rate, imagined": "drift_yaw_rate_correlation",
            "yaw rate, true frames": "drift_yaw_rate_correlation_true_frames",
            "speed, imagined": "drift_speed_correlation",
            "speed, true frames": "drift_speed_correlation_true_frames",
        },
    ),
    Plot(
        title="Drift: look, imagined over true",
        unit="ratio",
        lines={"sharpness": "drift_sharpness_ratio", "contrast": "drift_contrast_ratio"},
    ),
    Plot(
        title="Drift: trajectory error over two seconds",
        unit="m",
        lines=_beside_truth("drift_trajectory_error_m_at_2s", tokenized_too=False),
    ),
    Plot(
        title="Drift: PSNR against the true drive",
        unit="dB",
        lines=_beside_references("psnr_db", of="drift_"),
    ),
    Plot(title="Drift: SSIM against the true drive", unit="", lines=_beside_references("ssim", of="drift_")),
    Plot(
        title="Drift: LPIPS against the true drive (lower is better)",
        unit="",
        lines=_beside_references("lpips", of="drift_"),
    ),
    Plot(
        title="Drift: what the model adds",
        unit="dB",
        lines={"gain over repeat-last": "drift_psnr_gain_over_repeat_db"},
    ),
)
