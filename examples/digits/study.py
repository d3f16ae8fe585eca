"""A study of two training runs in one script: measure every checkpoint, read what was stored.

python study.py          # a few minutes; again: seconds, for what is stored is not computed again
"""

from pathlib import Path

import landscape

HERE = Path(__file__).parent
RESULTS = HERE / "study"


def main() -> None:
    batch = landscape.batch(
        [HERE / "runs" / "*-epoch0[1248]0.pt"],  # SGD's and SAM's checkpoints
        config=str(HERE / "landscape.toml"),
        run=["eigen", "ratios"],
        eigen={"k": 3},
        output=str(RESULTS),
        jobs=2,
        seed=0,
    )
    print(f"{len(batch.of('computed'))} computed, {len(batch.of('found'))} were there already")
    for failed in batch.of("failed"):
        print(failed.path.name, failed.kind, failed.error)

    for run in landscape.open(RESULTS).where(kind="eigen"):
        result = run.read()
        print(
            f"{run.checkpoint:22} λmax {result.eigenvalues[0]:.4f} ± {result.standard_errors[0]:.2g} (data)"
        )

    landscape.report(RESULTS, HERE / "report.html", title="SGD and SAM on digits", figures="last")


if __name__ == "__main__":
    main()
