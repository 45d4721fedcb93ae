"""Tables in Markdown of what each benchmark's file of figures holds."""

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.growth_fit import shown

Figures = dict[str, Any]
Lines = list[str]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Lines:
    """A table: a heading for each column, and its rows."""
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def put(page: str, marks: tuple[str, str], lines: Sequence[str]) -> str:
    """The page's text with these lines between its marks."""
    start, end = (page.index(mark) for mark in marks)
    return page[: start + len(marks[0])] + "\n\n" + "\n".join(lines) + "\n\n" + page[end:]


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    return (
        f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".") if abs(value) >= 1e-4 else f"{value:.1e}"
    )


def with_quartiles(at: dict[str, float] | None) -> str:
    """A median with its quartiles, or a dash."""
    if at is None:
        return "-"
    return f"{digits(at['median'])} ({digits(at['quartile_low'])} to {digits(at['quartile_high'])})"


def _compiler(result: Figures) -> Lines:
    """How long PyTorch's compiler took."""
    return [
        f"{name}: first call, with compilation, {taken:.0f} s."
        for name, taken in result["first_call_with_compilation"].items()
    ]


def _largest(name: str, apart: dict[str, float], of: str) -> Lines:
    """A sentence about the largest differences, where there are any."""
    parts = "; ".join(f"{program}: {worst:.1e}" for program, worst in apart.items())
    return [f"Largest differences from {name}, as shares of the largest {of}: {parts}."] if parts else []


def sampling(figures: Figures) -> Lines:
    """Images a second and ratios."""
    config, busy = figures["config"], figures["relative_throughput_by_processor_time"]
    speed = [
        [name, digits(figures["images_per_second"][name]), with_quartiles(at)]
        for name, at in figures["seconds"].items()
    ] + [[name, "-", f"failed: `{reason}`"] for name, reason in figures["failed"].items()]
    ratios = [
        [*name.split(" to "), with_quartiles(at), digits(busy[name]["median"])]
        for name, at in figures["relative_throughput"].items()
    ]
    return [
        f"{config['network']}, {config['batch']} images, {config['steps']} Heun steps ({figures['evaluations']} "
        "evaluations), "
        f"{config['dtype']}, {config['threads']} threads; medians of {config['repeats']} rounds (quartiles).",
        *_largest("dgu's samples", figures["largest_difference_from"], "magnitude"),
        *_compiler(figures),
        "",
        *table(["program", "images / s", "seconds"], speed),
        "",
        *table(["program", "relative to", "throughput ratio", "by processor time"], ratios),
    ]


def networks(figures: Figures) -> Lines:
    """A row for each network, pass and program."""
    rows, said = [], []
    for result in figures["results"]:
        work = f"{result['network']}, {result['pass']}, {result['dtype']}, {result['batch']} images"
        against = "dgu" if result["pass"] == "forward" else "the eager gradient"
        said += [
            f"{work}: {line}"
            for line in (*_largest(against, result["largest_difference"], "magnitude"), *_compiler(result))
        ]
        for name, at in result["seconds"].items():
            ratio, busy = (result[key].get(f"dgu to {name}") for key in
                           ("relative_throughput", "relative_throughput_by_processor_time"))  # fmt: skip
            rows.append([
                work, name, digits(result["images_per_second"][name]), with_quartiles(at),
                digits(result["flop_per_second"][name] / 1e9), f"{100 * result['share_of_ceiling'][name]:.0f} %",
                with_quartiles(ratio), digits(busy["median"]) if busy else "-",
            ])  # fmt: skip
        rows += [[work, name, "-", f"failed: `{reason}`", *"----"] for name, reason in result["failed"].items()]
    header = [
        "work",
        "program",
        "images / s",
        "seconds",
        "GFLOP/s",
        "of the ceiling",
        "dgu's throughput to it",
        "by processor time",
    ]
    return [*(line for one in said for line in (one, "")), *table(header, rows)]


def samplers(figures: Figures) -> Lines:
    """A table for each batch size."""
    lines: Lines = []
    for result in figures["results"]:
        rows = []
        for name, at in result["seconds"].items():
            beyond = result["overhead"].get(name)
            ratio = result["relative_throughput"].get(f"dgu, {name.split(', ')[1]} to {name}")
            rows.append([
                name, digits(result["images_per_second"][name]), with_quartiles(at),
                f"{1e3 * beyond['seconds']['median']:.1f}" if beyond else "-",
                "{:.1f} % ({:.1f} to {:.1f})".format(
                    *(100 * beyond["share"][of] for of in ("median", "quartile_low", "quartile_high"))
                ) if beyond else "-",
                with_quartiles(ratio),
            ])  # fmt: skip
        lines += [
            f"{result['batch']} images, {result['evaluations']} evaluations, {result['devices']} devices of JAX. "
            + " ".join(_largest("dgu's samples", result["largest_difference_from_dgu"], "magnitude")),
            "",
            *table(
                [
                    "program",
                    "images / s",
                    "seconds",
                    "beyond the network, ms",
                    "of the network's time",
                    "dgu's throughput to it",
                ],
                rows,
            ),
            "",
        ]
    return lines[:-1]


def scikit(figures: Figures) -> Lines:
    """A table of programs and one of ratios for each set of data."""
    lines: Lines = []
    for result in figures["results"]:
        losses = result["cross_entropy"]
        rows = [
            [
                name,
                with_quartiles(at),
                f"{result['accuracy'][name]:.3f}",
                f"{losses[name]:.4f}" if name in losses else "-",
            ]
            for name, at in result["seconds_per_run"].items()
        ]
        busy = result["relative_throughput_by_processor_time"]
        ratios = [
            [*name.split(" to "), with_quartiles(at), digits(busy[name]["median"])]
            for name, at in result["relative_throughput"].items()
        ]
        lines += [
            f"{result['set']}: {result['rows']:,} rows of {result['features']:,} features. The weights of both least "
            f"squares differ by {result['largest_difference_of_least_squares']:.1e} of the largest.",
            "",
            *table(["program", "seconds of a run", "accuracy", "cross-entropy on the training rows"], rows),
            "",
            *table(["program", "relative to", "throughput ratio", "by processor time"], ratios),
            "",
        ]
    return lines[:-1]


def classifiers(figures: Figures) -> Lines:
    """Seconds of a run and epoch."""
    unit, config = figures["seconds_per_run_epoch"], figures["config"]
    rows = [
        [f"dgu, {config['runs']} runs, {config['method']}", digits(unit["dgu"]), ""],
        ["PyTorch, resident tensors", digits(unit["torch_resident"]), digits(figures["ratio_to_resident"])],
        ["PyTorch, DataLoader", digits(unit["torch_loader"]), digits(figures["ratio_to_loader"])],
    ]
    return [
        *table(["program", "seconds per run and epoch", "dgu is faster by"], rows),
        "",
        f"dgu takes {digits(figures['dgu_fixed_seconds'])} s once for all runs (Gram matrix, upload, checks) and "
        f"{digits(figures['dgu_seconds_per_epoch_of_all_runs'])} s for an epoch of all runs: "
        f"{digits(figures['dgu_total_seconds'])} s for {config['epochs']} epochs.",
    ]


def _beside_torch(figures: Figures, unit: dict[str, float], ours: str, theirs: str, of: str) -> Lines:
    """A table of two programs, by the seconds that each takes for a ``unit`` of work."""
    ratios = [digits(figures["ratio"]), digits(figures["ratio_by_processor_time"])]
    rows = [[ours, digits(1e6 * unit["dgu"]), "", ""], [theirs, digits(1e6 * unit["torch"]), *ratios]]
    return table(["program", f"microseconds per {of}", "dgu is faster by", "by processor time"], rows)


def dynamics(figures: Figures) -> Lines:
    """Seconds of a run and epoch."""
    unit, config = figures["seconds_per_run_epoch"], figures["config"]
    return [
        *_beside_torch(figures, unit, f"dgu, {config['runs']} runs together", "PyTorch, one run", "run and epoch"),
        "",
        f"dgu takes {digits(figures['dgu_seconds'])} s for {config['runs']} runs of {config['epochs']:,} epochs, "
        f"compiled before; {figures['diverged']} diverged.",
    ]


def molrg(figures: Figures) -> Lines:
    """Microseconds of a trial and step, and the grids."""
    unit, config = figures["seconds_per_trial_step"], figures["config"]
    whole = (
        f"The whole study, run: {digits(figures['sgd_seconds'] / 60)} minutes, {100 * figures['sgd_as_theory']:.1f} % "
        "of problems as 1{N >= d}."
        if "sgd_seconds" in figures
        else f"The whole study by SGD, extrapolated: {digits(figures['sgd_seconds_extrapolated'] / 60)} minutes."
    )
    return [
        *_beside_torch(figures, unit, "dgu, SGD, all cells side by side", "PyTorch, one problem", "trial and step"),
        "",
        f"PCA's grid of {98 * config['trials']:,} problems: {digits(figures['pca_seconds'])} s "
        f"({digits(figures['first_calls_with_compilation']['pca'])} s with compilation), "
        f"{100 * figures['pca_as_theory']:.2f} % as 1{{N >= d}}. {whole}",
    ]


def neighbours(figures: Figures) -> Lines:
    """Seconds, speed and peak memory."""
    config, peak = figures["config"], figures["peak_bytes"]
    rows = [
        [
            name,
            with_quartiles(at),
            digits(figures["flop"] / at["median"] / 1e9),
            f"{peak[name] / 1e9:.2f} GB" if peak else "-",
        ]
        for name, at in figures["seconds"].items()
    ]
    ratio, busy = (
        figures[key]["dgu to numpy"] for key in ("relative_throughput", "relative_throughput_by_processor_time")
    )
    return [
        f"{config['queries']:,} queries, {config['reference']:,} rows, {config['width']:,} numbers each.",
        "",
        *table(["program", "seconds", "GFLOP/s", "peak memory"], rows),
        "",
        f"dgu is faster by {with_quartiles(ratio)}, by processor time {digits(busy['median'])}.",
    ]


def local(figures: Figures) -> Lines:
    """Seconds and speed of each program, and the memory of ours."""
    config, memory = figures["config"], figures["temporary_bytes"]
    rows = [
        [
            name,
            with_quartiles(at),
            *(
                "-" if name == "dgu" else digits(figures[key][f"dgu to {name}"]["median"])
                for key in ("relative_throughput", "relative_throughput_by_processor_time")
            ),
        ]
        for name, at in figures["seconds"].items()
    ]
    side, window = config["side"], config["window"]
    held = ", ".join(f"{size / 1e6:.2f} MB with {int(number):,}" for number, size in memory.items())
    return [
        f"{figures['noisy_images']} noisy images, {config['images']:,} training images of {side} x {side}, windows of "
        f"{window} x {window}.",
        "",
        *table(["program", "seconds", "dgu is faster by", "by processor time"], rows),
        "",
        f"Memory of dgu beyond the training images: {held} of them.",
    ]


def distillation(figures: Figures) -> Lines:
    """Adam's time and the exact one's."""
    exact, adam, config = figures["exact"], figures["adam_seconds"], figures["config"]
    taken = None if None in exact else sum(one["seconds"] for one in exact)
    used = None if taken is None else sum(one["processor_seconds"] for one in exact)
    row = [f"{adam:.0f} s", "not reached at every level", "-", "-", "-"]
    if taken is not None and used is not None:
        row = [
            f"{adam:.0f} s", f"{digits(taken)} s", digits(adam / taken),
            digits(figures["adam_processor_seconds"] / used), digits(figures["adam_seconds_to_error"] / taken),
        ]  # fmt: skip
    whole = figures["all"]
    larger = sum(error > wanted for error, wanted in zip(whole["error"], figures["adam_error"]))
    header = [
        "Adam",
        "exactly",
        "times faster",
        "by processor time",
        "Adam charged until it was no worse than at its end",
    ]
    return [
        f"d = {config['size']}, {config['images']:,} images, {config['epochs']} epochs of Adam; score error no larger "
        "than Adam's.",
        "",
        *table(header, [row]),
        "",
        f"One pair of noises of every image at every level: {digits(whole['seconds'])} s, "
        f"{digits(adam / whole['seconds'])} times less than Adam; the score error is larger than Adam's at {larger} of "
        f"{len(exact)} levels.",
    ]


def growth(figures: Figures) -> Lines:
    """A row for each curve."""
    rows = []
    for curve in figures["curves"]:
        seconds, memory, sizes = [at["median"] for at in curve["seconds"]], curve["bytes"], curve["sizes"]
        held = "-" if None in memory else f"{memory[0] / 1e6:.1f} to {memory[-1] / 1e6:.1f}"
        others = ", ".join(f"{name} {size:,}" for name, size in curve["others"].items())
        rows.append([
            f"`{curve['function']}`", curve["parameter"], f"{sizes[0]:,} to {sizes[-1]:,}", others,
            f"{digits(seconds[0])} to {digits(seconds[-1])}", shown(curve["time_exponent"]), held,
            shown(curve["memory_exponent"]),
        ])  # fmt: skip
    header = [
        "function",
        "grows",
        "from, to",
        "others",
        "seconds",
        "exponent of time (range)",
        "memory, MB",
        "exponent of memory (range)",
    ]
    return table(header, rows)


#: Figures of a stage: three predictions and what was measured.
MEMORY_COLUMNS = ("trace", "compiled", "probe", "measured")


def memory(figures: Figures) -> Lines:
    """A row a stage: the predictions beside what was measured; a dash where there is none."""
    rows = []
    for name, found in figures["stages"].items():
        known = {of: size for of, size in found.items() if size >= 0}
        sizes = (f"{known[of] / 1e6:,.0f} MB" if of in known else "-" for of in MEMORY_COLUMNS)
        ratios = (f"{known[of] / known['measured']:.2f}" if of in known else "-" for of in MEMORY_COLUMNS[:3])
        rows.append([name, *sizes, " / ".join(ratios)])
    header = ("stage", "`--dry-run`", "compiled", "`--probe`", "measured", "the three to measured")
    return table(header, rows)


#: By module of the benchmark.
TABLES: dict[str, Callable[[Figures], Lines]] = {
    "sampling": sampling, "networks": networks, "samplers": samplers, "scikit": scikit, "classifiers": classifiers,
    "dynamics": dynamics, "molrg": molrg, "neighbours": neighbours, "distillation": distillation, "growth": growth,
    "memory": memory, "local": local,
}  # fmt: skip
