"""Tables and figures of what `benchmark=table2` and `benchmark=trainer` measured, from their JSON."""

from collections.abc import Sequence
from typing import Any

from l2e.reporting.cells import MISSING, Table, decimals
from l2e.reporting.drawing import BASELINE, COLOURS, new_figure, style
from l2e.reporting.pictures import Picture, finish

NAMES = {"none": "Pythia", "l2e": "L2E", "memel": "MEmeL", "published_memel": "MEmeL, published algorithm"}
"""The methods, in the order of the table."""

PAPERS = {"none": "none", "l2e": "l2e", "memel": "memel", "published_memel": "memel"}
"""The paper's row beside each."""

TRAINERS = {"hf_trainer": "Hugging Face Trainer", "litgpt": "litgpt's loop", "bare_loop": "bare PyTorch loop"}
"""The other ways of `benchmark=trainer`."""


def measured_table(result: dict[str, Any]) -> Table:
    """A row for each size and method, the paper's beside it."""
    rows = [
        _row(size, method, found, found[method])
        for size, found in result["results"].items()
        for method in NAMES
        if method in found
    ]
    sizes = result["results"].values()
    steps = "; ".join(f"{size}: {_step(found)}" for size, found in result["results"].items())
    least = min((found["rounds"] for found in sizes), default=0)
    caption = (
        f"{result['device']}, torch {result['versions']['torch']}, {result['settings']['precision']}; {steps}. up: "
        f"median of at least {least} pairs with Pythia in turns, quartiles in brackets; Pythia's are those of one "
        "timing over the one before, so of the noise alone. 24 GPUs: the paper's 1024 x 2048 tokens at this speed, "
        "without communication. MFU: of the device's dense peak, attention whole, recomputation not counted."
    )
    header = ["size", "method", "ms", "tokens/s", "MFU", "memory\nGiB", "up", "24 GPUs\nms", "paper\nms", "paper\nup"]
    return Table("Table 2, measured", caption, header, rows, 2)


def tap_table(result: dict[str, Any]) -> Table:
    """How near a tap comes to the speed of a copy."""
    rows = [
        [
            size,
            decimals(found["tap"]["ms"], 3),
            decimals(found["tap"]["achieved_gb_per_s"], 1),
            decimals(found["tap"]["device_copy_gb_per_s"], 1),
            _percent(100 * found["tap"]["share_of_copy"], 1),
            _percent(found["tap"]["floor_percent"], 2),
        ]
        for size, found in result["results"].items()
    ]
    caption = (
        "One tap, forward and backward pass, alone on the device: the least bytes that it can move over its time, "
        "beside a copy on the device in the same run. floor: what all taps would add to a step at the copy's speed."
    )
    return Table("A tap beside a copy", caption, ["size", "ms", "GB/s", "copy\nGB/s", "share", "floor"], rows, 1)


def measured_figure(result: dict[str, Any], name: str) -> Picture:
    """The overhead of each method by size, with quartiles, and the paper's."""
    sizes = result["results"]
    methods = [method for method in NAMES if method != "none" and any(method in found for found in sizes.values())]
    rows: list[tuple[object, ...]] = []
    with style():
        figure = new_figure(2.9)
        axes = figure.subplots()
        width = 0.8 / max(1, len(methods))
        for number, method in enumerate(methods):
            for place, (size, found) in enumerate(sizes.items()):
                if method not in found:
                    continue
                low, high = (100 * (each - 1) for each in found[method]["step_ratio_spread"])
                up, paper = found[method]["overhead_percent"], _paper_up(found, method)
                x = place + (number - (len(methods) - 1) / 2) * width
                label = NAMES[method] if place == 0 else None
                axes.bar(x, up, 0.9 * width, color=COLOURS[number], label=label)
                axes.plot([x, x], [low, high], color="#222222", linewidth=1)
                if paper is not None:
                    first = number == 0 and place == 0
                    axes.plot(x, paper, marker="_", markersize=12, color=BASELINE, label="paper" if first else None)
                rows.append((size, method, up, low, high, "" if paper is None else paper))
        axes.set_xticks(range(len(sizes)), list(sizes))
        axes.set_ylabel("time of a step, up (%)")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=2, borderaxespad=0)
        caption = f"What a method adds to a training step on {result['device']}; lines: quartiles of the pairs."
        header = ("size", "method", "up_percent", "quartile_25", "quartile_75", "paper_up_percent")
        return finish(figure, name, "Overhead of a training step", caption, header, rows)


def _row(size: str, method: str, found: dict[str, Any], own: dict[str, Any]) -> list[str]:
    paper = found["paper"]
    times = paper["step_ms"] if paper else {}
    low, high = (100 * (each - 1) for each in own["step_ratio_spread"])
    up = "" if method == "none" else _percent(own["overhead_percent"], 2) + " "
    printed = _paper_up(found, method)
    return [
        size,
        NAMES[method],
        decimals(own["step_ms"], 1),
        f"{own['tokens_per_second']:,.0f}",
        MISSING if own["mfu"] is None else _percent(100 * own["mfu"], 1),
        decimals(own["memory_mib"] / 1024, 2),
        f"{up}[{decimals(low, 2)}, {decimals(high, 2)}]",
        decimals(own["projected_ms"]["24_gpus"], 1),
        f"{times[PAPERS[method]]:.1f}" if times else MISSING,
        MISSING if printed is None else _percent(printed, 1),
    ]


def _paper_up(found: dict[str, Any], method: str) -> float | None:
    return found["paper"]["overhead_percent"].get(PAPERS[method]) if found["paper"] else None


def _percent(value: float, places: int) -> str:
    return decimals(value, places) + "%"


def _step(found: dict[str, Any]) -> str:
    recomputed = ", blocks recomputed" if found["activation_checkpointing"] else ""
    return f"{found['tokens_per_step']:,} tokens a step{recomputed}"


def trainer_table(results: Sequence[dict[str, Any]]) -> Table:
    """What `benchmark=trainer` measured, a row for each of its results and ways."""
    rows = []
    for result in results:
        what, found = _workload(result), result["results"]
        rows.append([what, "ours", f"{found['ours']['tokens_per_second']:,.0f}", "1", MISSING])
        for key, name in TRAINERS.items():
            if key in found:
                low, high = found[f"vs_{key}_spread"]
                speed = f"{found[key]['tokens_per_second']:,.0f}"
                rows.append([what, name, speed, decimals(found[f"vs_{key}"], 2), f"{low:.2f} to {high:.2f}"])
    where = "; ".join(dict.fromkeys(f"{r['device']}, torch {r['versions']['torch']}" for r in results))
    caption = f"{where}. ratio: our tokens/s over theirs, median over alternating pairs, and its quartiles."
    return Table("The trainer", caption, ["what", "way", "tokens/s", "ratio", "quartiles"], rows, 2)


def trainer_figure(results: Sequence[dict[str, Any]], name: str) -> Picture:
    """How many times as fast as each other way ours is, with quartiles."""
    rows = [
        (_workload(result), result["device"], way, found[f"vs_{key}"], *found[f"vs_{key}_spread"])
        for result in results
        for found in [result["results"]]
        for key, way in TRAINERS.items()
        if key in found
    ]
    with style():
        figure = new_figure(0.8 + 0.45 * len(rows))
        axes = figure.subplots()
        for place, (_, _, _, ratio, low, high) in enumerate(rows):
            axes.barh(place, ratio, 0.7, color=COLOURS[0])
            axes.plot([low, high], [place, place], color="#222222", linewidth=1)
        axes.axvline(1, color=BASELINE, linewidth=1)
        axes.set_yticks(range(len(rows)), [f"{way}\n{what}, {device.split(':')[0]}" for what, device, way, *_ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("our tokens/s over theirs")
        caption = "Our trainer's speed over another's on the same rows; lines: quartiles of the pairs."
        header = ("what", "device", "way", "ratio", "quartile_25", "quartile_75")
        return finish(figure, name, "The trainer beside others", caption, header, rows)


def _workload(result: dict[str, Any]) -> str:
    settings = result["settings"]
    batch = f"{settings['model']}, {settings['micro_batches']} x {settings['micro_batch_size']}"
    return f"{batch} x {settings['seq_length']}, {settings['precision']}"
