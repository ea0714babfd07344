"""docs/performance.md is made from the benchmarks' JSON: numbers by hand, and the page around them left alone."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from l2e.reporting.kernel_code import kernel_code_table
from l2e.reporting.measured_steps import measured_figure, measured_table, tap_table, trainer_figure, trainer_table

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "studies" / "performance.py"))


def own(ms: float, ratio: float) -> dict[str, Any]:
    return {
        "step_ms": ms,
        "tokens_per_second": 65_536_000 / ms,
        "mfu": 0.4567,
        "memory_mib": 2560.0,
        "projected_ms": {"24_gpus": 1.3 * ms, "8_gpus": 4 * ms},
        "step_ratio": ratio,
        "step_ratio_spread": [ratio - 0.01, ratio + 0.02],
        "overhead_percent": 100 * (ratio - 1),
    }


RESULT = {
    "device": "cuda: NVIDIA H200",
    "versions": {"torch": "2.11.0"},
    "settings": {"precision": "bf16"},
    "left_out": ["2.8B"],
    "results": {
        "70M": {
            "tokens_per_step": 65536,
            "activation_checkpointing": True,
            "rounds": 7,
            "none": own(64.0, 1.0),
            "l2e": own(64.2, 1.003),
            "published_memel": own(80.0, 1.25),
            "tap": {
                "ms": 0.2,
                "achieved_gb_per_s": 1342.2,
                "device_copy_gb_per_s": 4000.0,
                "share_of_copy": 0.33555,
                "floor_percent": 0.21,
            },
            "paper": {
                "step_ms": {"none": 605.8, "memel": 664.8, "l2e": 626.5},
                "overhead_percent": {"memel": 9.739, "l2e": 3.417},
            },
        }
    },
}

CODE = {
    "device": "none: compiled for sm_90, counted for H200",
    "versions": {"triton": "3.9.0"},
    "settings": {"model": "pythia-70m"},
    "results": {
        f"look, {dtype}": {
            "registers": 94,
            "programs_per_sm": 5,
            "instructions": 17.09,
            "issue_ps": 0.553,
            "memory_ps": 0.573,
        }
        for dtype in ("bf16", "fp32")
    },
}

TRAINER = {
    "device": "cpu: AMD EPYC, 1 thread",
    "versions": {"torch": "2.13.0"},
    "settings": {
        "model": "pythia-14m",
        "micro_batches": 1,
        "micro_batch_size": 8,
        "seq_length": 512,
        "precision": "fp32",
    },
    "results": {
        "ours": {"tokens_per_second": 1500.0},
        "hf_trainer": {"tokens_per_second": 1000.0},
        "vs_hf_trainer": 1.5,
        "vs_hf_trainer_spread": [1.4, 1.6],
        "vs_litgpt": None,
    },
}


def test_the_rows() -> None:
    rows = measured_table(RESULT).rows
    assert rows[0] == [
        "70M",
        "Pythia",
        "64.0",
        "1,024,000",
        "45.7%",
        "2.50",
        "[\N{MINUS SIGN}1.00, 2.00]",
        "83.2",
        "605.8",
        "\N{EN DASH}",
    ]
    assert rows[1][6:] == ["0.30% [\N{MINUS SIGN}0.70, 2.30]", "83.5", "626.5", "3.4%"]
    assert rows[2][1] == "MEmeL, published algorithm"
    assert rows[2][8:] == ["664.8", "9.7%"]
    assert tap_table(RESULT).rows == [["70M", "0.200", "1342.2", "4000.0", "33.6%", "0.21%"]]
    assert "blocks recomputed" in measured_table(RESULT).caption


def test_the_figures_numbers() -> None:
    lines = measured_figure(RESULT, "table2-x").csv_text.splitlines()
    assert lines[0] == "size,method,up_percent,quartile_25,quartile_75,paper_up_percent"
    size, method, up, low, high, paper = lines[1].split(",")
    assert (size, method) == ("70M", "l2e")
    assert [float(each) for each in (up, low, high, paper)] == pytest.approx([0.3, -0.7, 2.3, 3.417])


def test_the_trainers_table() -> None:
    rows = trainer_table([TRAINER]).rows
    assert rows == [
        ["pythia-14m, 1 x 8 x 512, fp32", "ours", "1,500", "1", "\N{EN DASH}"],
        ["pythia-14m, 1 x 8 x 512, fp32", "Hugging Face Trainer", "1,000", "1.50", "1.40 to 1.60"],
    ]


def test_the_trainers_figure() -> None:
    lines = trainer_figure([TRAINER], "trainer").csv_text.splitlines()
    assert lines[0] == "what,device,way,ratio,quartile_25,quartile_75"
    assert lines[1].endswith(",Hugging Face Trainer,1.5,1.4,1.6")
    assert len(lines) == 2  # litgpt was not installed


def test_the_compiled_kernels_table() -> None:
    table = kernel_code_table(CODE)
    assert table.rows == [["look", "17.1", "0.55", "0.57", "94", "5"]]
    assert "compiled for sm_90, counted for H200, triton 3.9.0, outputs of pythia-70m in bf16" in table.caption


def test_the_page_keeps_what_is_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# By hand\n\n<!-- kernel-code -->\n<!-- end of kernel-code -->\n"
        "<!-- table2 -->\nold\n<!-- end of table2 -->\n\nmore\n\n"
        "<!-- trainer -->\n<!-- end of trainer -->\n"
    )
    results = tmp_path / "results"
    results.mkdir()
    (results / "table2-nvidia-h200.json").write_text(json.dumps(RESULT))
    arguments = ["--results", str(results), "--figures", str(tmp_path), "--page", str(page)]
    assert SCRIPT["main"](arguments) == 0
    text = page.read_text()
    none = "<!-- kernel-code -->\n\nNot measured yet.\n\n<!-- end of kernel-code -->"
    assert text.startswith(f"# By hand\n\n{none}\n<!-- table2 -->\n\n**Table 2, measured.**")
    assert "old" not in text
    assert "<!-- end of table2 -->\n\nmore\n\n<!-- trainer -->\n\nNot measured yet.\n\n<!-- end of trainer -->" in text
    assert "figures/table2-nvidia-h200.png" in text
    assert "Left out for want of time: 2.8B." in text
    assert (tmp_path / "table2-nvidia-h200.png").stat().st_size > 1000
    assert SCRIPT["main"](arguments) == 0
    assert page.read_text() == text
    (results / "trainer-cpu.json").write_text(json.dumps(TRAINER))
    assert SCRIPT["main"](arguments) == 0
    (results / "kernel-code-sm90.json").write_text(json.dumps(CODE))
    assert SCRIPT["main"](arguments) == 0
    assert "<!-- kernel-code -->\n\n**The kernels, compiled.** compiled for sm_90" in page.read_text()
    assert "<!-- trainer -->\n\n![The trainer beside others](figures/trainer.png)\n\n" in page.read_text()
    assert (tmp_path / "trainer.png").stat().st_size > 1000


def test_a_page_without_the_marks_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    assert SCRIPT["main"](["--results", str(tmp_path), "--figures", str(tmp_path), "--page", str(page)]) == 2
    assert "one line <!-- kernel-code -->" in capsys.readouterr().err
    assert page.read_text() == "nothing\n"
