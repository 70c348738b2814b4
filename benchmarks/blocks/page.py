"""docs/blocks.md: what was measured, and what plans say of sizes that nothing here can hold."""

import json
import statistics
from pathlib import Path

import keras

import keras_adjoint as ka
from benchmarks.blocks.chaos import HAPPENS
from benchmarks.blocks.problem import CHANNELS, TAPS
from benchmarks.blocks.simulator import Rates, profile_of, simulate
from keras_adjoint.blocks.plan import needed_bytes

RESULTS, PAGE = Path("benchmarks", "blocks", "results.json"), Path("docs", "blocks.md")
MIB = 2**20
INTRODUCTION = f"""# Blocks, measured

<!-- Written by `python -m benchmarks.blocks`. Changes made by hand are lost. -->

What `ka.apply_blocks` and plans on dask's workers hold and take ([how they work](how/blocks.md)), for the adjoint of a `Conv3D`
with {TAPS}³ taps from {CHANNELS} channels to {CHANNELS}, on volumes of float32 in zarr, in chunks of 32³ positions.
"""
WAYS = {
    "at once": "the whole array at once",
    "array": "blocks, from array to array",
    "uncompressed": "blocks, from zarr to zarr, uncompressed",
    "zstd": "blocks, from zarr to zarr, zstd",
    "copy uncompressed": "the same blocks only copied, uncompressed",
    "copy zstd": "the same blocks only copied, zstd",
}
ENGINES = {
    "numpy": "NumPy, memory map",
    "zarr": "zarr",
    "hdf5": "HDF5",
    "dask": "dask.distributed, 2 workers",
}
KERNELS, BLOCKS = (3, 5, 9), (32, 64, 128, 256, 512)
SIZES = ((512, 128), (2_048, 128), (10_000, 256), (100_000, 512))  # edges of volumes and of blocks
WORKERS = (1, 100, 10_000)
DEVICES = (8, 64, 512)
NEAR = 0.2  # of what was measured, which simulated times are meant to be


def read(root):
    """What was measured."""
    file = root / RESULTS
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def text(results):
    """The page."""
    lines = [INTRODUCTION]
    parts = {"chaos": chaos, "resources": resources, "throughput": throughput, "cluster": cluster}
    for part, write in parts.items():
        if part in results:
            lines += [*write(results[part]["figures"]), "", measured_with(results[part]["facts"]), ""]
    lines += [*surface(), "", *devices(), ""]
    if "cluster" in results:
        lines += growth(results["cluster"]["figures"]["growth"])
    return "\n".join(lines).rstrip() + "\n"


def measured_with(facts):
    load = "" if facts["load"] is None else f" The load average was {facts['load']}, with what else was running."
    return f"Measured with {facts['with']}, {facts['date']}.{load}"


def table(*rows):
    head, *others = [tuple(map(str, row)) for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *others)]


# --- what was measured


def chaos(figures):
    rows = [("engine", "what happens", "asserted", "figure", "what it says", "command")]
    for one in figures:
        case, engine = one["case"], one["engine"]
        asserted = "the same bits as without it" if one["bits"] else "the result of the whole, to rounding"
        asserted = f"refused, nothing written; then {asserted}" if case == "other-plan" else asserted
        command = f"`python -m benchmarks.blocks.chaos {case} {engine}`"
        rows.append((ENGINES[engine], HAPPENS[case], asserted, one["figure"], one.get("says", ""), command))
    return [
        "## Interrupted",
        "",
        "What is interrupted in the middle is started again, each time in a new process: which of 8 blocks were finished, how "
        "many were computed after that, and what the error says to do, where there is one. What is said of the result is "
        "asserted: the program ends with an error if it is not so. Each row is run by the command beside it on two cores.",
        "",
        *table(*rows),
    ]


def resources(figures):
    rows = [("volume", "size", "blocks", "memory held", "time", "largest error")]
    for one in figures:
        block = "×".join(map(str, one["block"]))
        rows.append(
            (
                f"{one['size']}³×{CHANNELS}",
                f"{one['volume'] / MIB:,.0f} MiB",
                f"{one['blocks']} of {block}",
                f"{one['held'] / MIB:.0f} MiB",
                f"{one['seconds']:.0f} s",
                f"{one['error']:.0e}",
            )
        )
    return [
        "## Memory",
        "",
        f'With `memory="{figures[0]["memory"]}"`, each in a process of its own: by how much the resident memory grew at its '
        "peak, from when everything had been imported and the model was built. The errors are those at some hundred positions, "
        "at borders of blocks among others, compared with the sum in float64.",
        "",
        *table(*rows),
    ]


def throughput(figures):
    times = figures["times"]
    whole = times["at once"]
    rows = [("", "best, s", "median, s", "of processors, s", "throughput ÷ at once, best", "median", "by processors")]
    for way, words in WAYS.items():
        one = times[way]
        kinds = ("best", "median", "processor")
        rows.append(
            (words, *(f"{one[kind]:.1f}" for kind in kinds), *(f"{whole[kind] / one[kind]:.2f}" for kind in kinds))
        )
    size, block = figures["size"], "×".join(map(str, figures["block"]))
    return [
        "## Throughput",
        "",
        f"{size}³ positions, which fit in memory, at once and in blocks of {block}, as large as {figures['memory']} "
        f"allows, {figures['turns']} times in turns, from NumPy arrays or files in the page cache. The numbers are random, "
        "which zstd makes little smaller. Other processes lengthen the times, but hardly the seconds of "
        "processors, which are those of all threads together. The last two rows are what zarr takes without a computation.",
        "",
        *table(*rows),
    ]


def cluster(figures):
    kinds = ("by its own blocks, s", "÷ measured", "by one worker's, s", "÷ measured")
    rows, ratios = [("workers", "turn", "measured, s", *kinds)], []
    for run in figures["runs"]:
        ratios.append([predicted / run["seconds"] for predicted in run["predicted"]])
        pairs = zip(run["predicted"], ratios[-1], strict=True)
        cells = [cell for predicted, ratio in pairs for cell in (f"{predicted:.1f}", f"{ratio:.2f}")]
        rows.append((run["workers"], run["turn"] + 1, f"{run['seconds']:.1f}", *cells))
    within = [sum(abs(ratio - 1) <= NEAR for ratio in each) for each in zip(*ratios, strict=True)]
    return [
        "## Workers",
        "",
        f"{figures['size']}³ positions in {figures['blocks']} blocks of {figures['block']}³ by `dask.distributed`, with worker "
        "processes of one thread on this machine, which have started and have the plan, and what a simulator says that knows "
        "what each block of the plan reads and makes. It hands blocks to free workers, as the scheduler does. What a block "
        "costs it knows from a quarter of them, drawn at random, of the same run, or of the run of one worker in the same "
        "turn, and from tasks that do nothing. Workers share the processors with each other and with what else is running, "
        "which lengthens their blocks and which only the first of these can know.",
        "",
        *table(*rows),
        "",
        f"{within[0]} of {len(ratios)} simulated times are within {NEAR:.0%} of the measured ones by blocks of the same run, "
        f"and {within[1]} by those of one worker.",
    ]


def mean_rates(figures):
    """The rates over all runs of one worker."""
    runs = [run for run in figures["runs"] if run["workers"] == 1]
    return Rates(*(statistics.mean(run[name] for run in runs) for name in ("fixed", "read", "made", "dispatch")))


# --- what plans say


def plan_of(size, block, taps=TAPS):
    """A plan of the adjoint of a convolution, of which nothing is computed."""
    conv = keras.layers.Conv3D(CHANNELS, taps, padding="same", use_bias=False)
    conv.build((None, None, None, None, CHANNELS))
    return ka.plan_blocks(ka.operator(conv, size=(size,) * 3).T, (size,) * 3, block=block, memory=2**60)


def surface():
    rows = [("block", *(f"{taps}³ taps" for taps in KERNELS), "memory of a worker")]
    for block in BLOCKS:
        plans = [plan_of(8 * block, block, taps) for taps in KERNELS]
        extra = []
        for plan in plans:
            profile = profile_of(plan)
            extra.append(f"{profile.numbers_read / profile.numbers_made - 1:.1%}")
        rows.append((f"{block}³", *extra, f"{needed_bytes(plans[1]) / 2**30:.1f} GiB"))
    return [
        "## Surface over volume",
        "",
        "What blocks read more than once, as a share of the volume, and what `memory` a block takes with 5³ taps. A block of "
        "edge B reads (B + taps − 1)³ positions, so that the share is about 3 (taps − 1) / B: twice the edge halves it, and "
        "takes eight times the memory. Neither depends on the size of the volume. Of an array in chunks, a block reads every "
        "chunk that it touches: `apply_blocks` keeps what later blocks need of it, as far as `memory` allows.",
        "",
        *table(*rows),
    ]


def devices():
    size, rows = (
        512,
        [("devices", "slabs", "halo of one, MiB", "÷ its part", "cubes", "halo of one, MiB", "÷ its part")],
    )
    for count in DEVICES:
        row = [count]
        edge = round(count ** (1 / 3))
        for block in ((size // count, size, size), (size // edge,) * 3):
            profile = profile_of(plan_of(size, block))
            read, made = max(profile.sizes())
            halo = read - made
            row += ["×".join(map(str, block)), f"{4 * halo / MIB:.1f}", f"{halo / made:.2f}"]
        rows.append(tuple(row))
    return [
        "## Devices",
        "",
        f"A volume of {size}³×{CHANNELS} float32 that is distributed over devices, in slabs along one axis or in cubes: what a "
        "device in the middle gets from its neighbours, once for each application. In slabs it stays the same while the parts "
        "become smaller; in cubes it falls with the power ⅔ of the part.",
        "",
        *table(*rows),
    ]


def simulated(rates, sizes=SIZES):
    """The seconds that volumes of some sizes take so many workers, with what their plans read."""
    found = []
    for size, block in sizes:
        profile = profile_of(plan_of(size, block))
        extra = profile.numbers_read / profile.numbers_made - 1
        seconds = [simulate(profile, rates, count) for count in WORKERS]
        found.append({"size": size, "block": block, "blocks": profile.blocks, "extra": extra, "seconds": seconds})
    return found


def growth(figures):
    rows = [("positions", "blocks", "read", *("1 worker" if count == 1 else f"{count:,} workers" for count in WORKERS))]
    for one in figures:
        times = map(duration, one["seconds"])
        rows.append((f"{one['size']:,}³", f"{one['blocks']:,} of {one['block']}³", f"{1 + one['extra']:.1%}", *times))
    return [
        "## Up to a petavoxel",
        "",
        "The same simulator, at rates that are the means of the runs of one worker above: one thread of that machine, and what "
        "other processes left of it. This is no measurement, but what follows if storage serves all workers as it served one. "
        "The time grows with the volume and falls with the workers, as long as there are more blocks than workers and the "
        "scheduler keeps up, which hands out one block after the other.",
        "",
        *table(*rows),
        "",
        "Building the graph of millions of blocks takes time of its own, and is not in these figures.",
    ]


def duration(seconds):
    """Seconds, minutes, hours or days."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s"
