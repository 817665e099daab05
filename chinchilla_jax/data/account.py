"""What `prepare` did to a corpus, from a store's manifest: a table, and a page with pictures and examples."""

from pathlib import Path

WIDTH = 100  # characters of an example


def table(manifest: dict) -> list[str]:
    """What each stage left, and why documents were left out."""
    lines = [f"{'stage':<34}{'documents':>14}{'left out':>12}{'share':>9}"]
    for name, before, after in stages(manifest):
        share = (before - after) / max(1, before)
        lines.append(f"{name:<34}{after:>14,}{before - after:>12,}{share:>9.2%}")
        for rule, found in rules(manifest, name):
            lines.append(f"  {rule:<32}{'':>14}{found['documents']:>12,}")
    return lines


def stages(manifest: dict) -> list[tuple[str, int, int]]:
    """Name, documents before and documents after of every stage, and of the split."""
    kept = sum(source["documents"] for source in manifest["sources"])
    dropped = {stage["stage"]: stage["dropped"] for stage in manifest.get("stages", ()) if "dropped" in stage}
    count = kept + sum(dropped.values())
    found = [(s["stage"], s["in"][0], s["out"][0]) for s in manifest.get("stages", ()) if "in" in s]
    empty = manifest["empty"]
    found.append(("empty", count + empty, count))
    for name, number in dropped.items():
        found.append((name, count, count - number))
        count -= number
    return found


def rules(manifest: dict, stage: str) -> list[tuple[str, dict]]:
    """The rules of a stage that some documents broke; one may break several."""
    entry = next((s for s in manifest.get("stages", ()) if s["stage"] == stage), {})
    return [(name, found) for name, found in entry.get("rules", {}).items() if found["documents"]]


def write(manifest: dict, folder: Path) -> list[Path]:
    """Write corpus.md and corpus.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, page = folder / "corpus.png", folder / "corpus.md"
    draw(manifest, picture)
    lines = ["# The corpus", "", f"![what each stage leaves]({picture.name})", "", "```", *table(manifest), "```", ""]
    lines += [
        "| source | split | documents | bytes | tokens | bytes a token |",
        "| --- | --- | --: | --: | --: | --: |",
    ]
    for split, counts in manifest["splits"].items():
        for source in counts.get("sources", ()):
            per = source["bytes"] / max(1, source["tokens"])
            lines.append(f"| {source['name']} | {split} | {source['documents']:,} | {source['bytes']:,} "
                         f"| {source['tokens']:,} | {per:.2f} |")  # fmt: skip
    for stage in manifest.get("stages", ()):
        lines += ["", f"## {stage['stage']} (version {stage['version']})", ""]
        lines += [f"Settings: `{stage['settings']}`", ""] if stage.get("settings") else []
        lines += [f"{key}: {stage[key]:,}" for key in ("pairs", "clusters", "dropped") if key in stage]
        for rule, found in rules(manifest, stage["stage"]):
            lines += ["", f"**{rule}**: {found['documents']:,} documents, such as", ""]
            lines += [f"- {value:.4g}: `{' '.join(text.split())[:WIDTH]}`" for _, value, text in found["examples"]]
    page.write_text("\n".join(lines) + "\n", "utf-8", "backslashreplace")
    return [page, picture]


def shown(source: str) -> str:
    """The last part of a source's name, without what a font lacks."""
    return source.rstrip("/").rpartition("/")[2].encode("latin-1", "replace").decode("latin-1")


def draw(manifest: dict, path: Path) -> None:
    """Documents after each stage, documents by broken rule, and tokens by source."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    left = stages(manifest)
    broken = [(rule, f["documents"]) for name, _, _ in left for rule, f in rules(manifest, name)]
    sources = [(shown(s["name"]), s["tokens"]) for s in manifest["splits"]["train"]["sources"]]
    panels = [("documents left", [("read", left[0][1]), *((name, after) for name, _, after in left)])]
    panels += [("documents that break a rule", broken)] if broken else []
    panels += [("tokens of training by source", sources)]
    figure = Figure((5 * len(panels), 1 + 0.28 * max(len(bars) for _, bars in panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, bars) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        names, values = zip(*reversed(bars))
        axes.barh(range(len(bars)), values, color="#4477aa")
        axes.set_yticks(range(len(bars)), names)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
